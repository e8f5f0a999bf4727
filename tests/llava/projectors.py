"""Small projector files with random weights: the metadata and tensors that mtmd expects of each family.

A family is a function that fills a :class:`Maker`. `IMAGES` (projectors_images.py) and `AUDIO` (projectors_audio.py)
list the families; `NOT_MADE` lists two that are missing, with the reasons. The embeddings have no meaning: they show
that every code path runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cyllama import models
from cyllama.llama import GGUFContext

Array = npt.NDArray[Any]
WIDTH, HEADS, FORWARD, LAYERS = 64, 4, 48, 2  # of an encoder
PATCH, IMAGE = 8, 64  # pixels
TEXT = 32  # of the language model, and of the embeddings


@dataclass
class Maker:
    """The keys and the tensors of a projector file."""

    prefix: str = "v"
    keys: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Array] = field(default_factory=dict)
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(20261125))

    def tensor(self, name: str, *shape: int, kind: Any = np.float32) -> None:
        """Return random numbers of a NumPy shape, so small that sums over the last axes stay near one."""
        scale = 1 / np.sqrt(max(1, np.prod(shape[1:])))
        self.tensors[name] = (scale * self.random.standard_normal(shape)).astype(kind)

    def linear(self, name: str, rows: int, columns: int, bias: bool = True) -> None:
        self.tensor(f"{name}.weight", rows, columns)
        if bias:
            self.tensor(f"{name}.bias", rows)

    def conv(self, name: str, rows: int, columns: int, *kernel: int, bias: bool = True, kind: Any = np.float16) -> None:
        self.tensor(f"{name}.weight", rows, columns, *kernel, kind=kind)
        if bias:
            self.tensor(f"{name}.bias", rows)

    def norm(self, name: str, width: int = WIDTH, bias: bool = True) -> None:
        self.tensors[f"{name}.weight"] = (1 + 0.1 * self.random.standard_normal(width)).astype(np.float32)
        if bias:
            self.tensors[f"{name}.bias"] = (0.1 * self.random.standard_normal(width)).astype(np.float32)

    def sizes(self, of: str, **more: int) -> None:
        """Set the keys that every encoder has; `of` is vision, audio or gen.audio."""
        common = {
            "embedding_length": WIDTH,
            "feed_forward_length": FORWARD,
            "block_count": LAYERS,
            "attention.head_count": HEADS,
            "projection_dim": TEXT,
        }
        if of == "vision":
            common |= {"image_size": IMAGE, "patch_size": PATCH}
            self.keys["clip.vision.image_mean"] = np.full(3, 0.5, np.float32)
            self.keys["clip.vision.image_std"] = np.full(3, 0.5, np.float32)
        for key, value in (common | more).items():
            self.keys[f"clip.{of}.{key}"] = value
        self.keys[f"clip.{of}.attention.layer_norm_epsilon"] = 1e-6
        self.keys[f"clip.has_{of.replace('gen.audio', 'gen_audio')}_encoder"] = True

    def layers(
        self,
        *,
        width: int = WIDTH,
        forward: int = FORWARD,
        count: int = LAYERS,
        fused: bool = False,
        keys_and_values: int | None = None,
        bias: bool = True,
        key_bias: bool = True,
        gate: bool = False,
        norm_bias: bool = True,
    ) -> None:
        """Add the blocks of a transformer."""
        narrow = width if keys_and_values is None else keys_and_values
        for i in range(count):
            block = f"{self.prefix}.blk.{i}"
            self.norm(f"{block}.ln1", width, norm_bias)
            self.norm(f"{block}.ln2", width, norm_bias)
            if fused:
                self.linear(f"{block}.attn_qkv", width + 2 * narrow, width, bias)
            else:
                self.linear(f"{block}.attn_q", width, width, bias)
                self.linear(f"{block}.attn_k", narrow, width, bias and key_bias)
                self.linear(f"{block}.attn_v", narrow, width, bias)
            self.linear(f"{block}.attn_out", width, width, bias)
            self.linear(f"{block}.ffn_up", forward, width, bias)
            if gate:
                self.linear(f"{block}.ffn_gate", forward, width, bias)
            self.linear(f"{block}.ffn_down", width, forward, bias)

    def write(self, path: Path, projector: str) -> Path:
        with GGUFContext.empty() as file:
            file.set("general.architecture", "clip")
            file.set("general.name", f"tiny {projector}")
            if not any(key.endswith(".projector_type") for key in self.keys):
                file.set("clip.projector_type", projector)
            for key, value in self.keys.items():
                kind = {int: "u32", float: "f32", np.int32: "i32"}.get(type(value))
                if isinstance(value, list):
                    kind = "arr[i32]"
                file.set(key, value, kind)
            for name, tensor in self.tensors.items():
                file.add_tensor(name, np.ascontiguousarray(tensor))
            file.write(path)
        return path


@dataclass(frozen=True)
class Family:
    """One projector.

    Attributes
    ----------
    fill : callable
        Fills a maker.
    tokens : int
        Number of embeddings of the image or the audio of the tests.
    text : int
        Width of its language model.
    prefix : str
        Prefix of the names of the encoder's tensors.
    mrope : bool
        Whether the language model has positions in several dimensions.
    """

    fill: Callable[[Maker], None]
    tokens: int
    text: int = TEXT
    prefix: str = "v"
    mrope: bool = False


def projector_file(name: str, family: Family, folder: Path) -> Path:
    """Write the file of a family into a folder."""
    maker = Maker(family.prefix)
    family.fill(maker)
    return maker.write(folder / f"{name}.gguf", name)


def text_model(family: Family, folder: Path) -> Path:
    """Write a language model with random weights for a family: llama, or qwen2vl for multidimensional positions."""
    width, arch = family.text, "qwen2vl" if family.mrope else "llama"
    if width == TEXT and arch == "llama":
        return models.get("tiny-random-llama")
    path = folder / f"text-{arch}-{width}.gguf"
    if path.exists():
        return path
    maker = Maker()
    with GGUFContext.from_file(models.get("tiny-random-llama")) as small, GGUFContext.empty() as file:
        for key in small:
            if key.startswith("tokenizer."):
                file.set(key, small[key], small.type_of(key))
        words = len(small["tokenizer.ggml.tokens"])
        file.set("general.architecture", arch)
        numbers = {
            "vocab_size": words,
            "context_length": 2048,
            "block_count": 1,
            "embedding_length": width,
            "feed_forward_length": 32,
            "attention.head_count": 1,
            "attention.head_count_kv": 1,
            "attention.key_length": 32,
            "attention.value_length": 32,
            "rope.dimension_count": 32,
        }
        for key, value in numbers.items():
            file.set(f"{arch}.{key}", value, "u32")
        file.set(f"{arch}.attention.layer_norm_rms_epsilon", 1e-5, "f32")
        if family.mrope:
            file.set(f"{arch}.rope.dimension_sections", [4, 6, 6, 0], "arr[i32]")
        maker.tensor("token_embd.weight", words, width, kind=np.float16)
        for name, rows, columns in (
            *(("attn_q", 32, width), ("attn_k", 32, width), ("attn_v", 32, width), ("attn_output", width, 32)),
            *(("ffn_gate", 32, width), ("ffn_up", 32, width), ("ffn_down", width, 32)),
        ):
            maker.linear(f"blk.0.{name}", rows, columns, bias=family.mrope and name in ("attn_q", "attn_k", "attn_v"))
        for norm in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
            maker.norm(norm, width, bias=False)
        for name, tensor in maker.tensors.items():
            file.add_tensor(name, tensor)
        file.write(path)
    return path
