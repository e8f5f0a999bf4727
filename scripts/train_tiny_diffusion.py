"""Train ``tiny-shapes``: a small model of the FLUX architecture that generates coloured shapes.

See ``cyllama.models.generated.tiny_shapes``.

    pip install torch
    python scripts/train_tiny_diffusion.py

The training takes less than two hours on two cores, continues after an interruption, and writes the weights that the
package contains. Each step generates its images, noise and order from its own seed: the same release of PyTorch on the
same kind of processor gives the same weights.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from cyllama.llama import GGUFContext
from cyllama.models.generated import tiny_shapes

WIDTH, HEAD, DOUBLE_BLOCKS, SINGLE_BLOCKS = 256, 128, 1, 3
CHANNELS, COPIES, TEXT_TOKENS = 16, 5, 256
AXES = (16, 56, 56)  # dimensions of a head that are rotated by text position, row and column
SMALL, LARGE = 16, 24  # sides of the images, in latents of 8 pixels
SEED, STEPS, AVERAGE = 20261123, 7000, 0.998
RATE, MATRIX_RATE = 1.0e-3, 2.0e-3  # of AdamW, and of Muon for the matrices of the blocks, which learns shapes faster
BATCH = {SMALL: 64, LARGE: 28}
PAIRS = {SMALL: 0.25, LARGE: 0.6}  # probability of two objects: small images have too few latents for both
CHECKPOINT_STEPS = 200

# --- the data: prompts and images ---

COLOURS = torch.tensor(list(tiny_shapes.COLOURS.values()))
COLOUR_NAMES = list(tiny_shapes.COLOURS)
ALONE = {"": (0.28, 0.36), "small": (0.18, 0.235), "large": (0.38, 0.45)}  # radius, as a part of the side
PAIR = (0.19, 0.215)
Thing = tuple[int, int, float, float, float]  # shape, colour, x, y, radius


def scene(chance: random.Random, pairs: float) -> tuple[list[str], int, list[Thing]]:
    """Return a prompt, the background's colour and one or two things."""
    white = COLOUR_NAMES.index("white")
    first, second, back = chance.sample(range(len(COLOURS)), 3)
    if chance.random() < 0.4:
        back = white
        first, second = chance.sample([c for c in range(len(COLOURS)) if c != white], 2)
    tail = [] if back == white and chance.random() < 0.75 else ["on", COLOUR_NAMES[back]]
    shape, other = chance.randrange(len(tiny_shapes.SHAPES)), chance.randrange(len(tiny_shapes.SHAPES))
    if chance.random() >= pairs:
        size = chance.choice(tiny_shapes.SIZES) if chance.random() < 0.5 else ""
        radius = chance.uniform(*ALONE[size])
        room = (0.46 - radius) * 0.6
        x, y = 0.5 + chance.uniform(-room, room), 0.5 + chance.uniform(-room, room)
        article = [] if chance.random() < 0.1 else ["a"]  # "red circle"
        return article + thing_words(first, shape, size) + tail, back, [(shape, first, x, y, radius)]
    relation = chance.choice(list(tiny_shapes.RELATIONS))
    along, across = 0.5 - chance.uniform(0.24, 0.255), 0.5 + chance.uniform(-0.06, 0.06)
    if relation in ("right", "below"):
        along = 1 - along
    places = [(along, across), (1 - along, 1 - across)]
    if relation in ("above", "below"):
        places = [(across, along), (1 - across, 1 - along)]
    things = [
        (shape, first, *places[0], chance.uniform(*PAIR)),
        (other, second, *places[1], chance.uniform(*PAIR)),
    ]
    words = ["a", *thing_words(first, shape), *tiny_shapes.RELATIONS[relation], "a", *thing_words(second, other)]
    return words + tail, back, things


def thing_words(colour: int, shape: int, size: str = "") -> list[str]:
    """Return the words for a thing."""
    return [*([size] if size else []), COLOUR_NAMES[colour], tiny_shapes.SHAPES[shape]]


def coverage(shape: Tensor, x: Tensor, y: Tensor, radius: Tensor, side: int) -> Tensor:
    """Return the part of each latent that an object covers, shape (objects, side, side): clipped signed distances."""
    axis = torch.arange(side) + 0.5
    dx = (axis[None, None, :] - x[:, None, None] * side).expand(-1, side, -1)
    dy = (axis[None, :, None] - y[:, None, None] * side).expand(-1, -1, side)
    r = (radius * side)[:, None, None]
    ax, ay, away = dx.abs(), dy.abs(), torch.hypot(dx, dy)
    flank = (1.7 * ax - 0.98 * (dy + r)) / math.hypot(1.7, 0.98)
    distances = {
        "circle": away - r,
        "square": torch.maximum(ax, ay) - 0.88 * r,
        "triangle": torch.maximum(dy - 0.7 * r, flank),
        "cross": torch.minimum(torch.maximum(ax - r, ay - 0.34 * r), torch.maximum(ax - 0.34 * r, ay - r)),
        "ring": (away - 0.72 * r).abs() - 0.27 * r,
    }
    every = torch.stack([distances[name] for name in tiny_shapes.SHAPES], 1)
    return (0.5 - every[torch.arange(len(shape)), shape]).clamp(0, 1)


def batch(chance: random.Random, count: int, side: int) -> tuple[Tensor, Tensor]:
    """Return latents, shape (count, 16, side, side), and the text encodings of their prompts."""
    scenes = [scene(chance, PAIRS[side]) for _ in range(count)]
    image = COLOURS[[back for _, back, _ in scenes]][:, None, None].expand(-1, side, side, -1)
    for turn in range(2):
        rows = [row for row, (_, _, things) in enumerate(scenes) if len(things) > turn]
        columns = zip(*(scenes[row][2][turn] for row in rows), strict=True)
        shape, colour, x, y, radius = (torch.tensor(column) for column in columns)
        cover = torch.zeros(count, side, side)
        cover[rows] = coverage(shape, x, y, radius, side)
        paint = torch.zeros(count, 3)
        paint[rows] = COLOURS[colour]
        image = torch.lerp(image, paint[:, None, None].expand_as(image), cover[..., None])
    latents = (image * 2 - 1).permute(0, 3, 1, 2)
    latents = torch.cat([latents] * COPIES + [torch.zeros_like(latents[:, :1])], 1)
    prompts = [[] if chance.random() < 0.1 else words for words, _, _ in scenes]  # the empty prompt: for cfg
    return latents, torch.from_numpy(tiny_shapes.encode(prompts))


# --- the transformer, with the names of FLUX's tensors ---


def rotations(side: int) -> Tensor:
    """Return the rotations of a text token and of side x side patches, shape (1, 1, tokens, 64, 2, 2)."""
    places = torch.zeros(1 + side * side, 3)
    places[1:, 1] = torch.arange(side).repeat_interleave(side)
    places[1:, 2] = torch.arange(side).repeat(side)
    parts = []
    for axis, width in enumerate(AXES):
        angle = places[:, axis, None].double() / 10000.0 ** (torch.arange(0, width, 2).double() / width)
        parts.append(torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], -1).unflatten(-1, (2, 2)))
    return torch.cat(parts, 1).float()[None, None]


def turned(x: Tensor, turns: Tensor) -> Tensor:
    pairs = x.float().unflatten(-1, (-1, 1, 2))
    return (turns[..., 0] * pairs[..., 0] + turns[..., 1] * pairs[..., 1]).flatten(-2).to(x.dtype)


class Norm(nn.Module):
    """Root mean square."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(HEAD))

    def forward(self, x: Tensor) -> Tensor:
        return (x.float() * torch.rsqrt(x.float().square().mean(-1, keepdim=True) + 1e-6)).to(x.dtype) * self.scale


class Norms(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query_norm, self.key_norm = Norm(), Norm()

    def forward(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = qkv.unflatten(-1, (3, WIDTH // HEAD, HEAD)).permute(2, 0, 3, 1, 4)
        return self.query_norm(q), self.key_norm(k), v


class Modulation(nn.Module):
    def __init__(self, parts: int) -> None:
        super().__init__()
        self.lin, self.parts = nn.Linear(WIDTH, parts * WIDTH), parts

    def forward(self, vector: Tensor) -> tuple[Tensor, ...]:
        return self.lin(functional.silu(vector))[:, None].chunk(self.parts, -1)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.norm, self.proj = nn.Linear(WIDTH, 3 * WIDTH), Norms(), nn.Linear(WIDTH, WIDTH)


def attend(q: Tensor, k: Tensor, v: Tensor, turns: Tensor) -> Tensor:
    """Compute attention with one text token in place of 256 equal ones: log(256) is added to its weight."""
    bias = torch.zeros(1, 1, 1, k.shape[2], dtype=q.dtype)
    bias[..., 0] = math.log(TEXT_TOKENS)
    q, k = turned(q, turns), turned(k, turns)
    return functional.scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2).flatten(2)


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return (1 + scale) * functional.layer_norm(x, (WIDTH,), eps=1e-6) + shift


class DoubleBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        for side in ("img", "txt"):
            setattr(self, f"{side}_mod", Modulation(6))
            setattr(self, f"{side}_attn", Attention())
            mlp = (nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(approximate="tanh"), nn.Linear(4 * WIDTH, WIDTH))
            setattr(self, f"{side}_mlp", nn.Sequential(*mlp))

    def forward(self, image: Tensor, text: Tensor, vector: Tensor, turns: Tensor) -> tuple[Tensor, Tensor]:
        sides = [(text, "txt"), (image, "img")]
        parts = [getattr(self, f"{side}_mod")(vector) for _, side in sides]
        heads = []
        for (x, side), part in zip(sides, parts, strict=True):
            attention = getattr(self, f"{side}_attn")
            heads.append(attention.norm(attention.qkv(modulated(x, part[0], part[1]))))
        seen = attend(*(torch.cat(pair, 2) for pair in zip(*heads, strict=True)), turns)
        after = []
        found = (seen[:, : text.shape[1]], seen[:, text.shape[1] :])
        for (x, side), part, out in zip(sides, parts, found, strict=True):
            x = x + part[2] * getattr(self, f"{side}_attn").proj(out)
            after.append(x + part[5] * getattr(self, f"{side}_mlp")(modulated(x, part[3], part[4])))
        return after[1], after[0]


class SingleBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(WIDTH, 7 * WIDTH), nn.Linear(5 * WIDTH, WIDTH)
        self.norm, self.modulation = Norms(), Modulation(3)

    def forward(self, x: Tensor, vector: Tensor, turns: Tensor) -> Tensor:
        shift, scale, gate = self.modulation(vector)
        qkv, mlp = self.linear1(modulated(x, shift, scale)).split([3 * WIDTH, 4 * WIDTH], -1)
        seen = attend(*self.norm(qkv), turns)
        return x + gate * self.linear2(torch.cat([seen, functional.gelu(mlp, approximate="tanh")], 2))


class Embedder(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.in_layer, self.out_layer = nn.Linear(width, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.out_layer(functional.silu(self.in_layer(x)))


class FinalLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, 4 * CHANNELS)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(WIDTH, 2 * WIDTH))

    def forward(self, x: Tensor, vector: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(vector)[:, None].chunk(2, -1)
        return self.linear(modulated(x, shift, scale))


class Flux(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.img_in = nn.Linear(4 * CHANNELS, WIDTH)
        self.time_in, self.vector_in = Embedder(256), Embedder(768)
        self.txt_in = nn.ParameterDict({"bias": nn.Parameter(torch.zeros(WIDTH))})  # without text: the input is zeros
        self.double_blocks = nn.ModuleList(DoubleBlock() for _ in range(DOUBLE_BLOCKS))
        self.single_blocks = nn.ModuleList(SingleBlock() for _ in range(SINGLE_BLOCKS))
        self.final_layer = FinalLayer()
        for name, parameter in self.named_parameters():
            if "mod" in name or "final_layer" in name:  # the blocks begin close to the identity
                if parameter.dim() > 1:
                    nn.init.normal_(parameter, std=0.01)
                else:
                    nn.init.zeros_(parameter)

    def forward(self, patches: Tensor, times: Tensor, text: Tensor, turns: Tensor) -> Tensor:
        angles = (times * 1000)[:, None] * torch.exp(-math.log(10000) * torch.arange(128) / 128)
        vector = self.time_in(torch.cat([angles.cos(), angles.sin()], -1)) + self.vector_in(text)
        token = self.txt_in["bias"][None, None].expand(len(patches), 1, WIDTH)
        image = self.img_in(patches)
        for block in self.double_blocks:
            image, token = block(image, token, vector, turns)
        both = torch.cat([token, image], 1)
        for block in self.single_blocks:
            both = block(both, vector, turns)
        return self.final_layer(both[:, 1:], vector)


# --- training ---


def sides() -> Iterator[int]:
    """Yield the side of each step's images: first the small ones, which are faster to learn, then both in turn."""
    for step in range(STEPS):
        yield LARGE if step > STEPS * 2 // 5 and step % 2 else SMALL


def patched(latents: Tensor) -> Tensor:
    count, channels, side, _ = latents.shape
    blocks = latents.reshape(count, channels, side // 2, 2, side // 2, 2)
    return blocks.permute(0, 2, 4, 1, 3, 5).reshape(count, side * side // 4, channels * 4)


def loss_of(model: nn.Module, chance: random.Random, side: int, turns: Tensor) -> Tensor:
    """Return the error of the predicted velocity; the empty channel has a small weight."""
    latents, text = batch(chance, BATCH[side], side)
    clean = patched(latents)
    times = torch.sigmoid(
        torch.randn(len(clean)) * 1.3 + 0.4
    )  # mostly high noise, where the prompt has the largest effect
    noise = torch.randn_like(clean)
    mixed = torch.lerp(clean, noise, times[:, None, None])
    with torch.autocast("cpu", torch.bfloat16):
        velocity = model(mixed, times, text, turns)
    weight = torch.ones(CHANNELS, 4)
    weight[-1] = 0.02
    return ((velocity.float() - (noise - clean)).square() * weight.flatten()).mean()


def optimizers_of(model: nn.Module) -> list[torch.optim.Optimizer]:
    """Return Muon for the matrices of the blocks, and AdamW for the other weights."""
    matrices, rest = [], []
    for name, parameter in model.named_parameters():
        inside = "blocks" in name and "mod" not in name and parameter.dim() == 2
        (matrices if inside else rest).append(parameter)
    muon = torch.optim.Muon(matrices, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    return [muon, torch.optim.AdamW(rest, betas=(0.9, 0.98), weight_decay=0.01)]


def train(checkpoint: Path) -> dict[str, Tensor]:
    """Train to the end, and return the average of the last weights."""
    torch.manual_seed(SEED)
    model = Flux()
    optimizers = optimizers_of(model)
    average = {name: value.clone() for name, value in model.state_dict().items()}
    first = 0
    if checkpoint.exists():
        saved = torch.load(checkpoint)
        first, average = saved["step"], saved["average"]
        model.load_state_dict(saved["model"])
        for optimizer, state in zip(optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
    turns = {side: rotations(side // 2) for side in BATCH}
    begin, shown = time.monotonic(), 0.0
    for step, side in enumerate(sides()):
        if step < first:
            continue
        torch.manual_seed(SEED + step)
        part = min(1, (step + 1) / 100) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / STEPS)))
        for optimizer, rate in zip(optimizers, (MATRIX_RATE, RATE), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * part
        loss = loss_of(model, random.Random(SEED + step), side, turns[side])
        model.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        keep = min(AVERAGE, 1 - 1 / (step * 0.1 + 1))
        for name, value in model.state_dict().items():
            average[name].lerp_(value, 1 - keep)
        shown = 0.95 * shown + 0.05 * loss.item() if shown else loss.item()
        if (step + 1) % 20 == 0:
            print(f"step {step + 1} of {STEPS}, loss {shown:.4f}, {time.monotonic() - begin:.0f} s", flush=True)
        if (step + 1) % CHECKPOINT_STEPS == 0:
            state = {"step": step + 1, "average": average}
            state |= {"model": model.state_dict(), "optimizers": [optimizer.state_dict() for optimizer in optimizers]}
            torch.save(state, checkpoint.with_suffix(".new"))
            checkpoint.with_suffix(".new").replace(checkpoint)
    return average


# --- the file ---


def q8_0(rows: np.ndarray) -> np.ndarray:
    """Rows of Q8_0 blocks: 32 numbers of 8 bits and their scale."""
    blocks = rows.reshape(-1, 32)
    scale = np.abs(blocks).max(1) / np.float32(127)
    whole = np.rint(blocks / np.maximum(scale, np.float32(1e-30))[:, None]).astype(np.int8)
    raw = np.concatenate([scale.astype(np.float16)[:, None].view(np.uint8), whole.view(np.uint8)], 1)
    return raw.reshape(len(rows), -1)


def write(weights: dict[str, Tensor], path: Path) -> None:
    """Write the weights: matrices as Q8_0, vectors as F32."""
    file = GGUFContext.empty()
    file.set("general.architecture", "flux")
    file.set("general.name", "tiny-shapes")
    for name, value in weights.items():
        data = value.float().numpy()
        if data.ndim > 1:
            file.add_tensor(f"model.diffusion_model.{name}", q8_0(data), "Q8_0")
        else:
            file.add_tensor(f"model.diffusion_model.{name}", data)
    file.write(path)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train tiny-shapes, the image model in the package.")
    parser.add_argument("--checkpoint", type=Path, default=Path("build/tiny-shapes.pt"), help="where to go on")
    parser.add_argument("--output", type=Path, default=Path(tiny_shapes.__file__).parent / tiny_shapes.WEIGHTS)
    arguments = parser.parse_args()
    arguments.checkpoint.parent.mkdir(parents=True, exist_ok=True)
    write(train(arguments.checkpoint), arguments.output)
    print(f"wrote {arguments.output}")


if __name__ == "__main__":
    main()
