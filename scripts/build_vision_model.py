"""Fit the last block and the projector of ``vision-dinov2s``, and check the model.

See ``cyllama.models.converters.vision``.

    pip install onnxruntime
    python scripts/build_vision_model.py

The script writes the file that the package contains, and compares the transformer in mtmd with onnxruntime. The fit has
a closed form. A ridge regression on the transformer's features predicts whether an object covers a patch or has an edge
in it. The heads of an additional block attend to such patches, to all patches, or to the class token. A second
regression computes a score for each fact from the outputs of the heads. The projector selects the words that are
possible at a token's position. The images are generated from seeds, so that the same releases of NumPy, Pillow and
onnxruntime on the same kind of processor give the same file.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from vision_images import COLOURS, COLUMNS, OUTLINES, ROWS, SIZES, UNNAMED, Scene, scene_image

from cyllama import models
from cyllama.llama import GGUFContext, LlamaModel
from cyllama.llava import Bitmap, MtmdContext
from cyllama.models._archive import extract_member
from cyllama.models._download import fetch
from cyllama.models.converters import vision
from cyllama.models.converters.bert import read_onnx

Array = npt.NDArray[Any]
IMAGES, PATCH_IMAGES, HELD_OUT = 3700, 400, 400
LAST_LAYER = f"/backbone/encoder/layer.{vision.LAYERS - 1}/Add_1_output_0"
FREE = vision.WIDTH + 2 * vision.GRID  # index of the first free feature; these are zero before the last block
HEADS = vision.WIDE // vision.HEAD
RIDGE_PATCH, RIDGE_FACT = 1e-4, 3e-2  # of the mean square of the features
# The last block adds LEVEL and -LEVEL to two free features. LEVEL is so large that the last norm divides every patch by
# SPREAD; the norm's weights scale the other features back, and these two to KEPT, because the projector begins with
# another norm.
LEVEL, KEPT = 256.0, 64.0
SPREAD, LAST_SPREAD = LEVEL * np.sqrt(2 / vision.WIDE), KEPT * np.sqrt(2 / vision.WIDE)
MEANT = 1.0  # the score of a true fact before the last norm
# The block's feed-forward part sets scores below DOUBT to zero, and turns "several" into a step function. In the
# projector, the scores of the other facts of a kind count against a fact with the weight RIVAL; GAIN scales a high
# score to one. SHUT suppresses words at other positions, and the words for one object if there are several. STEEP
# scales the inputs of GELUs, so that these are sharp.
DOUBT, STEP, GAIN, RIVAL, SHUT, STEEP = 0.1, (0.35, 0.65), 4.0, 0.55, 8.0, 16.0


COUNTS = ("a", "two", "three")
FACTS: dict[str, tuple[str, ...]] = {
    "count": COUNTS,
    "colour": tuple(COLOURS),
    "shape": tuple(shape for shape in OUTLINES if shape not in UNNAMED),
    "ground": tuple(COLOURS),
    "several": ("several",),
    "size": tuple(size or "medium" for size in SIZES),
    "row": ROWS,
    "column": COLUMNS,
}
OF_ONE = ("size", "row", "column")  # facts about a single object
SEVERAL = ("several", "several")
NUMBERED = [(kind, value) for kind, values in FACTS.items() for value in values]
SLOTS = (vision.GRID // vision.MERGE) ** 2


@dataclass(frozen=True)
class Unit:
    """A word at a position of the sentence, the fact that it needs, and whether it needs several objects or one.

    `base` is its score without evidence for any fact of its kind, so that a position is never empty.
    """

    slot: int
    word: str
    fact: tuple[str, str] | None = None
    several: bool | None = None
    base: float = 0.0
    rival: float = RIVAL


def plural(shape: str) -> str:
    return "crosses" if shape == "cross" else f"{shape}s"


def units() -> list[Unit]:
    """Return the words of sentences.

    For example "This picture shows a small red circle on a white background, in the top left".
    """
    found = [Unit(slot, word) for slot, word in enumerate(("This", "picture", "shows"))]
    found += [Unit(slot, word) for slot, word in ((7, "on"), (8, "a"), (10, "background"), (11, ","), (12, "in"))]
    found += [Unit(13, "the", None, False)]
    found += [Unit(3, "a", None, False)]
    found += [Unit(3, word, ("count", word), True, base=0.5, rival=1.0) for word in COUNTS[1:]]
    for slot, kind in ((5, "colour"), (9, "ground")):
        found += [Unit(slot, word, (kind, word)) for word in FACTS[kind]]
    for slot, kind in ((4, "size"), (6, "shape"), (14, "row"), (15, "column")):
        found += [Unit(slot, word, (kind, word), False, base=float(word == "medium")) for word in FACTS[kind]]
    found += [Unit(6, plural(word), ("shape", word), True) for word in FACTS["shape"]]
    return found + [
        Unit(slot, w, None, True) for slot, w in ((4, "solid"), (13, "several"), (14, "different"), (15, "places"))
    ]


def facts(scene: Scene) -> dict[str, str]:
    """Return the facts of an image: one value of each kind."""
    found = {"count": COUNTS[scene.count - 1], "colour": scene.colour, "shape": scene.shape, "ground": scene.ground}
    if scene.count > 1:
        return found | {"several": "several"}
    return found | {"size": scene.size or "medium", "row": ROWS[scene.row], "column": COLUMNS[scene.column]}


# --- features: outputs of the last layer before the last norm ---


def session(network: Path, *outputs: str) -> onnxruntime.InferenceSession:
    """Return a session of the network with the given outputs."""
    model = onnx.load(str(network))
    del model.graph.output[:]
    model.graph.output.extend(onnx.helper.make_tensor_value_info(name, 1, None) for name in outputs)
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def shuffled(network: Path, folder: Path) -> Path:
    """Return the network with shuffled weights, as a control of the fit."""
    model, chance = onnx.load(str(network)), np.random.default_rng(0)
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.ndim > 1:
            permuted = chance.permutation(values.reshape(-1)).reshape(values.shape)
            tensor.CopyFrom(onnx.numpy_helper.from_array(permuted, tensor.name))
    path = folder / "shuffled.onnx"
    onnx.save(model, str(path))
    return path


def pixels(image: Any) -> Array:
    """Return the normalized input of the network for an image."""
    values = (np.asarray(image, np.float32) / 255 - np.float32(vision.MEAN)) / np.float32(vision.DEVIATION)
    return values.transpose(2, 0, 1)


def features(network: Path, first: int, count: int, folder: Path) -> tuple[Array, Array, list[Scene]]:
    """Return (features, cover of each patch, scenes) of numbered images; the features are cached in a file.

    Images of unnamed shapes are skipped.
    """
    file = folder / f"{first}-{count}.npy"
    made = [item for item in (scene_image(f"train {first + i}") for i in range(count)) if item[2].shape not in UNNAMED]
    tiles = (vision.GRID, vision.PATCH, vision.GRID, vision.PATCH)
    cover = np.stack([item[1].reshape(tiles).mean((1, 3)).reshape(-1) for item in made])
    if not file.exists():
        run, begun = session(network, LAST_LAYER), time.monotonic()
        partial = file.with_suffix(".part")
        shape = (len(made), vision.GRID**2 + 1, vision.WIDTH)
        found = np.lib.format.open_memmap(partial, "w+", np.float16, shape)
        for i in range(0, len(made), 4):
            batch = np.stack([pixels(item[0]) for item in made[i : i + 4]])
            found[i : i + 4] = run.run(None, {"input_image": batch})[0]
            if i % 400 == 0:
                print(f"{i} of {len(made)} images, {time.monotonic() - begun:.0f} s", flush=True)
        found.flush()
        partial.rename(file)
    return np.load(file, mmap_mode="r"), cover, [item[2] for item in made]


def with_place(values: Array, norm: tuple[Array, Array]) -> Array:
    """Return features after the first norm of the last block: the network's last norm, then row and column."""
    values = values.astype(np.float32)
    values = values - values.mean(-1, keepdims=True)
    deviation = np.sqrt((values * values).mean(-1, keepdims=True) + np.float32(vision.EPSILON))
    place = np.zeros((values.shape[1], 2 * vision.GRID), np.float32)
    row, column = np.divmod(np.arange(vision.GRID**2), vision.GRID)
    place[1 + np.arange(vision.GRID**2), row] = place[1 + np.arange(vision.GRID**2), vision.GRID + column] = 1
    return np.concatenate([values / deviation * norm[0] + norm[1], place / deviation], axis=-1)


# --- the fit ---


def ridge(inputs: Array, targets: Array, strength: float) -> tuple[Array, Array]:
    """Return weights (targets, inputs) and biases of a linear regression."""
    inputs, targets = inputs.astype(np.float64), targets.astype(np.float64)
    middle, aim = inputs.mean(0), targets.mean(0)
    inputs = inputs - middle
    gram = inputs.T @ inputs
    gram[np.diag_indices_from(gram)] += strength * np.trace(gram) / len(gram)
    weights = np.linalg.solve(gram, inputs.T @ (targets - aim)).T
    return weights.astype(np.float32), (aim - weights @ middle).astype(np.float32)


def keys(values: Array, cover: Array) -> Array:
    """Return the key of each head of the last block, shape (heads, features of a patch)."""
    numbers = values.shape[-1]
    aims = np.zeros((*values.shape[:2], 3), np.float32)
    aims[:, 1:, 0], aims[:, 1:, 1], aims[:, 0, 2] = cover > 0.6, (cover > 0.05) & (cover < 0.95), 1
    used = values[..., : vision.WIDTH].reshape(-1, vision.WIDTH)
    (inside, edge, of_class), _ = ridge(used, aims.reshape(-1, 3), RIDGE_PATCH)
    both = inside + edge
    patterns = [
        20 * of_class,
        0 * of_class,
        4 * (inside - of_class),
        10 * (inside - of_class),
        10 * (edge - of_class),
        4 * (edge - of_class),
        6 * (both - of_class),
        -10 * (both + of_class),
    ]
    result = np.zeros((HEADS, numbers), np.float32)
    result[:, : vision.WIDTH] = patterns
    return result


def gathered(values: Array, key: Array, norm: tuple[Array, Array], batch: int = 50) -> Array:
    """Return the attention output of each head, shape (images, heads, features of a patch)."""
    parts = []
    for i in range(0, len(values), batch):
        inputs = with_place(values[i : i + batch], norm)
        logits = (inputs @ key.T).transpose(0, 2, 1)
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        parts.append((weights / weights.sum(-1, keepdims=True)) @ inputs)
    return np.concatenate(parts)


def block(key: Array, weights: Array, biases: Array, norm: tuple[Array, Array]) -> dict[str, Array]:
    """Return the tensors of the last block, which writes the scores of the facts to the free features."""
    wide, head, words = vision.WIDE, vision.HEAD, len(weights)
    share = np.sqrt(np.float32(vision.WIDTH) / np.float32(wide))
    tensors = {f"ln1.{kind}": np.zeros(wide, np.float32) for kind in ("weight", "bias")}
    tensors["ln1.weight"][: vision.WIDTH], tensors["ln1.bias"][: vision.WIDTH] = norm[0] * share, norm[1]
    tensors["ln1.weight"][vision.WIDTH : FREE] = share / vision.PLACE
    for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
        tensors |= {f"{name}.weight": np.zeros((wide, wide), np.float32), f"{name}.bias": np.zeros(wide, np.float32)}
    for i in range(HEADS):
        first, numbers = i * head, key.shape[1]
        tensors["attn_q.bias"][first] = np.sqrt(head)  # the engine divides by this
        tensors["attn_k.weight"][first, :numbers] = key[i]
        tensors["attn_v.weight"][first : first + words, :numbers] = weights[:, i * numbers : (i + 1) * numbers]
        tensors["attn_out.weight"][FREE + np.arange(words), first + np.arange(words)] = MEANT
    tensors["attn_out.bias"][FREE : FREE + words] = MEANT * biases
    for values in (tensors["attn_out.weight"], tensors["attn_out.bias"]):
        values[vision.BALANCE] = -values.sum(0)  # the sum has no mean, so that the next norm subtracts nothing
    tensors["attn_out.bias"][-2:] = LEVEL, -LEVEL
    restore = np.zeros(wide, np.float32)
    restore[vision.WIDTH : FREE], restore[FREE : FREE + words] = SPREAD / vision.PLACE, SPREAD / MEANT
    restore[-2:] = KEPT * SPREAD / LEVEL
    tensors |= {"ln2.weight": restore, "ln2.bias": np.zeros(wide, np.float32)} | cut(words)
    result = {f"v.blk.{vision.LAYERS}.{name}": tensor for name, tensor in tensors.items()}
    return result | {"v.post_ln.weight": restore, "v.post_ln.bias": np.zeros(wide, np.float32)}


def cut(words: int) -> dict[str, Array]:
    """Return the feed-forward part: max(0, x - DOUBT) for each fact x, a step for "several"; four units each."""
    up, bias = np.zeros((4 * words, vision.WIDE), np.float32), np.zeros(4 * words, np.float32)
    down = np.zeros((vision.WIDE, 4 * words), np.float32)
    for fact in range(words):
        units = slice(4 * fact, 4 * fact + 4)
        up[units, FREE + fact] = np.array([1, -1, 1, 1]) * STEEP
        down[FREE + fact, units] = np.array([-1, 1, 1, 0]) * MEANT / STEEP  # the first two: GELU(-x) - GELU(x) is -x
        bias[units] = np.array([0, 0, -DOUBT, 0]) * STEEP
        if NUMBERED[fact] == SEVERAL:
            bias[units] = np.array([0, 0, -STEP[0], -STEP[1]]) * STEEP
            down[FREE + fact, units][2:] = np.array([1, -1]) * MEANT / STEEP / (STEP[1] - STEP[0])
    down[vision.BALANCE] = -down.sum(0)
    nothing = np.zeros(vision.WIDE, np.float32)
    return {"ffn_up.weight": up, "ffn_up.bias": bias, "ffn_down.weight": down, "ffn_down.bias": nothing}


def projector(embedding: Vocabulary) -> dict[str, Array]:
    """Return the projector: two GELUs for each unit."""
    made = units()
    weights, biases = np.zeros((len(made), vision.WIDE), np.float32), np.zeros(len(made), np.float32)
    for i, unit in enumerate(made):
        for first, place in zip((0, vision.GRID), divmod(unit.slot, vision.GRID // vision.MERGE), strict=True):
            begin = vision.WIDTH + first + place * vision.MERGE
            weights[i, begin : begin + vision.MERGE] = SHUT
        biases[i] = -2 * SHUT
        if unit.several is not None:
            weights[i, FREE + NUMBERED.index(SEVERAL)] = SHUT if unit.several else -SHUT
            biases[i] -= SHUT if unit.several else 0
        if unit.fact:
            rivals = [j for j, fact in enumerate(NUMBERED) if fact[0] == unit.fact[0] and fact[1] != "a"]
            weights[i, FREE + np.array(rivals)] -= unit.rival * GAIN
            weights[i, FREE + NUMBERED.index(unit.fact)] += (1 + unit.rival) * GAIN
        biases[i] += unit.base if unit.fact else 1
    weights[:, 0] = -weights.sum(1)  # the norm subtracts the mean, and this feature has no other content
    words = np.stack([embedding(unit.word) for unit in made], axis=1) / STEEP
    return {
        "mm.model.mlp.1.weight": np.concatenate([weights, weights]) * (STEEP * LAST_SPREAD),
        "mm.model.mlp.1.bias": np.concatenate([biases, biases - 1]) * STEEP,
        "mm.model.mlp.3.weight": np.concatenate([words, -words], axis=1),
        "mm.model.mlp.3.bias": np.zeros(len(words), np.float32),
    }


class Vocabulary:
    """SmolLM2's embeddings of words that are one token."""

    def __init__(self, path: Path) -> None:
        with GGUFContext.from_file(path) as model:
            self.ids = {token: i for i, token in enumerate(model["tokenizer.ggml.tokens"])}
            raw = model.tensor_data("token_embd.weight")
            shape = model.tensor_info("token_embd.weight").shape
            blocks = np.ascontiguousarray(raw).view(np.uint8).reshape(shape[0], -1, 34)  # Q8_0
            scales = blocks[..., :2].copy().view(np.float16).astype(np.float32)
            self.table = (blocks[..., 2:].copy().view(np.int8) * scales).reshape(shape)

    def __call__(self, word: str) -> Array:
        found: Array = self.table[self.ids[word if word == "," else f"Ġ{word}"]]
        return found


def truth(scenes: Sequence[Scene]) -> Array:
    """Return the true facts as ones and zeros, shape (images, facts)."""
    known = [facts(scene) for scene in scenes]
    return np.array([[true.get(kind) == value for kind, value in NUMBERED] for true in known], np.float32)


def fit_facts(seen: Array, true: Array) -> tuple[Array, Array]:
    """Fit a regression for each kind of fact, on the images that have such a fact."""
    weights, biases = [], []
    for kind in FACTS:
        columns = [i for i, fact in enumerate(NUMBERED) if fact[0] == kind]
        rows = true[:, columns].any(1) if kind in OF_ONE else np.ones(len(true), bool)
        found = ridge(seen[rows], true[rows][:, columns], RIDGE_FACT)
        weights.append(found[0])
        biases.append(found[1])
    return np.concatenate(weights), np.concatenate(biases)


def accuracy(scores: Array, true: Array) -> str:
    """Return the accuracy of the highest score of each kind of fact."""
    found = []
    for kind, values in FACTS.items():
        columns = [i for i, fact in enumerate(NUMBERED) if fact[0] == kind]
        if len(values) == 1:
            right = (scores[:, columns[0]] > 0.5) == (true[:, columns[0]] > 0.5)
        else:
            rows = true[:, columns].any(1)
            right = scores[rows][:, columns].argmax(1) == true[rows][:, columns].argmax(1)
        found.append(f"{kind} {100 * right.mean():.1f}%")
    return ", ".join(found)


def fit(network: Path, folder: Path, count: int, destination: Path) -> None:
    """Fit, print the accuracy on held-out images, and write the file."""
    values, cover, scenes = features(network, 0, count, folder)
    weights = vision.backbone(read_onnx(network))
    norm = (weights["v.post_ln.weight"], weights["v.post_ln.bias"])
    key = keys(with_place(values[:PATCH_IMAGES], norm), cover[:PATCH_IMAGES])
    regression = fit_facts(gathered(values, key, norm).reshape(len(values), -1), truth(scenes))
    held, _, others = features(network, count, HELD_OUT, folder)
    scores = gathered(held, key, norm).reshape(len(held), -1) @ regression[0].T + regression[1]
    print("accuracy on held-out images:", accuracy(scores, truth(others)))
    vocabulary = Vocabulary(models.get("smollm2-135m-instruct"))
    tensors = block(key, *regression, norm) | projector(vocabulary)
    with GGUFContext.empty() as file:
        file.set("general.name", "vision-dinov2s, the fitted part")
        for name, tensor in sorted(tensors.items()):
            file.add_tensor(name, np.ascontiguousarray(tensor, np.float16 if tensor.ndim > 1 else np.float32))
        file.write(destination)


def check(network: Path, folder: Path) -> None:
    """Compare mtmd with onnxruntime: the output of the transformer's last norm, through a linear projector."""
    tensors, wide, merge = vision.backbone(read_onnx(network)), vision.WIDE, vision.MERGE
    norm = [np.pad(tensors[f"v.post_ln.{kind}"], (0, wide - vision.WIDTH)) for kind in ("weight", "bias")]
    mix = np.random.default_rng(1).standard_normal((288, wide * merge**2)).astype(np.float16).astype(np.float32)
    both = np.eye(576, 288)  # GELU(x) - GELU(-x) is x
    plain = {
        "v.post_ln.weight": norm[0] * np.sqrt(np.float32(vision.WIDTH / wide)),
        "v.post_ln.bias": norm[1],
        "mm.model.mlp.1.weight": np.concatenate([mix, -mix]),
        "mm.model.mlp.1.bias": np.zeros(576),
        "mm.model.mlp.3.weight": np.concatenate([both, -both], axis=1),
        "mm.model.mlp.3.bias": np.zeros(576),
    }
    file = folder / "check.gguf"
    vision.write_mmproj(vision.widened(tensors) | plain, file)
    run, worst = session(network, LAST_LAYER), 1.0
    with LlamaModel(models.get("smollm2-135m-instruct")) as model, MtmdContext(file, model) as mtmd:
        for i in range(8):
            image = scene_image(f"check {i}")[0]
            chunks = mtmd.tokenize("<__media__>", [Bitmap.from_pixels(np.asarray(image))])
            found = mtmd.encode(next(chunk for chunk in chunks if chunk.type.name == "IMAGE"))[:, :288]
            rows = normed(run.run(None, {"input_image": pixels(image)[None]})[0][0, 1:], vision.EPSILON)
            rows = np.pad(rows, ((0, 0), (0, wide - vision.WIDTH))) * norm[0] + norm[1]
            side = vision.GRID // merge  # the order in which patches are merged
            rows = rows.reshape(vision.GRID, side, -1).transpose(1, 0, 2).reshape(side, side, -1).transpose(1, 0, 2)
            expected = normed(rows.reshape(side * side, -1), 1e-5) @ mix.T
            sizes = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
            worst = min(worst, float(((found * expected).sum(1) / sizes).min()))
    print(f"mtmd against onnxruntime: the cosine of a word's features is at least {worst:.6f}")


def normed(values: Array, epsilon: float) -> Array:
    values = values - values.mean(-1, keepdims=True)
    result: Array = values / np.sqrt((values * values).mean(-1, keepdims=True) + np.float32(epsilon))
    return result


def main() -> None:
    """Run the script."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=IMAGES, help="number of images to fit on (default: %(default)s)")
    parser.add_argument("--work", type=Path, help="folder that keeps the features of the images (1.2 GB)")
    parser.add_argument("--output", type=Path, default=Path(vision.__file__).parent / vision.FITTED)
    parser.add_argument("--shuffled", action="store_true", help="a control: fit on a network with shuffled weights")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.work or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        archive = fetch(models.find("vision-dinov2s").archives[0])
        network = extract_member(archive, vision.MEMBER, Path(scratch) / "model.onnx")
        if options.shuffled:
            network = shuffled(network, Path(scratch))
        fit(network, folder, options.images, options.output)
        if not options.shuffled:
            check(network, Path(scratch))


if __name__ == "__main__":
    main()
