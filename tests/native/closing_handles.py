"""The handles of each engine, and arguments for their methods, for closing_during_calls.py."""

from __future__ import annotations

import inspect
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import cyllama
from cyllama import _native

FOLDER = tempfile.TemporaryDirectory(prefix="closing-")
NOISE = np.random.default_rng(0).normal(0, 0.1, 16_000).astype("f4")
PICTURE = np.random.default_rng(0).integers(0, 256, (28, 28, 3)).astype("u1")


class Chooser:
    """A sampler in Python."""

    def apply(self, array: Any) -> None:
        array.selected = 0


# What a builder returns: the object whose members are called, then what it depends on, the nearest first.
Chain = list[Any]
Builder = Callable[[], Chain]


def new_path() -> Path:
    """Return a path in the temporary folder where there is no file."""
    return Path(FOLDER.name) / f"{time.monotonic_ns()}.bin"


class Group:
    """The classes of an engine, and arguments for their methods by the name of the parameter."""

    package = ""
    builders: dict[str, Builder]
    by_name: dict[str, Callable[[Chain], Any]]
    by_method: dict[str, tuple[Any, ...]]

    def arguments(self, chain: Chain, name: str, method: Callable[..., Any]) -> list[Any]:
        """Return an argument for each parameter that the method requires."""
        key = f"{type(chain[0]).__name__}.{name}"
        if key in self.by_method:
            return [value(chain) if callable(value) else value for value in self.by_method[key]]
        parameters = inspect.signature(method).parameters.values()
        required = [p.name for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
        return [self.by_name[parameter](chain) for parameter in required]


class Llama(Group):
    package = "cyllama.llama"

    def __init__(self) -> None:
        from llama.test_adapter import write_lora
        from llama.test_training import trainable

        from cyllama import llama
        from cyllama.llama import _common, _engine, _speculative, _templates

        path = cyllama.models.get("tiny-random-llama")
        lora = write_lora(new_path(), path)
        batch = llama.LlamaBatch.from_tokens([1] * 64, logits_all=True)
        options = ["--model", str(path), "--ctx-size", "512"]

        def model() -> Chain:
            return [llama.LlamaModel(path)]

        def context() -> Chain:
            chain = model()
            return [llama.LlamaContext(chain[0], llama.LlamaContextParams(n_ctx=256, n_seq_max=2)), *chain]

        def decoded() -> Chain:
            chain = context()
            chain[0].decode(batch)
            return chain

        def of(parents: Builder, make: Callable[[Any], Any]) -> Builder:
            def build() -> Chain:
                chain = parents()
                return [make(chain[0]), *chain]

            return build

        def sampler(_: Any = None) -> Any:
            chain = llama.LlamaSampler()
            chain.add_dist(1)
            return chain

        self.builders = {
            "GGUFContext": lambda: [llama.GGUFContext.from_file(path)],
            "LlamaModel": model,
            "LlamaVocab": of(model, lambda m: m.vocab),
            "LlamaAdapterLora": of(model, lambda m: llama.LlamaAdapterLora(m, lora)),
            "LlamaContext": decoded,
            "LlamaMemory": of(decoded, lambda c: c.memory),
            "LlamaState": of(decoded, lambda c: c.state),
            "LlamaBatch": lambda: [llama.LlamaBatch.from_tokens([1, 2, 3])],
            "LlamaBatchExt": of(context, llama.LlamaBatchExt),
            "LlamaSampler": lambda: [sampler()],
            "CommonSampler": of(model, lambda m: _common.CommonSampler(m, _common.CommonParams())),
            "Speculative": of(decoded, _speculative.Speculative),
            "ChatTemplate": of(model, lambda m: _templates.ChatTemplate(m, "{{ messages[0].content }}")),
            "Trainer": of(lambda: [trainable(path)], llama.Trainer),
            "Engine": lambda: [_engine.Engine(options)],
            "EngineResponse": of(
                lambda: [_engine.Engine(options)],
                lambda e: e.request("completion", b'{"prompt": "a", "n_predict": 64, "stream": true}'),
            ),
        }
        other = decoded()
        self.by_name = text_arguments(other, batch) | {"other": sampler}
        self.by_method = text_method_arguments(path, lora, other)


def text_arguments(other: Chain, batch: Any) -> dict[str, Callable[[Chain], Any]]:
    """Return the arguments of the text engine by the name of the parameter."""
    from cyllama import llama

    return {
        "token": lambda chain: 1,
        "tokens": lambda chain: [1, 2, 3] * 500,
        "prompt": lambda chain: [1, 2, 3],
        "text": lambda chain: "some words and dots... " * 500,
        "path": lambda chain: new_path(),
        "batch": lambda chain: batch,
        "threadpool": lambda chain: _native.ThreadPool(1),
        "embeddings": lambda chain: True,
        "causal_attn": lambda chain: True,
        "callback": lambda chain: None,
        "adapters": lambda chain: [],
        "data": lambda chain: None,
        "sampler": lambda chain: None,
        "vocab": lambda chain: other[1].vocab,
        "ctx": lambda chain: other[0],
        "array": lambda chain: llama.TokenDataArray(np.arange(8, dtype=np.int32), np.zeros(8, np.float32)),
        "grammar": lambda chain: 'root ::= "a" | "b"',
        "n_vocab": lambda chain: 100,
        "biases": lambda chain: {1: 1.0},
        "messages": lambda chain: [{"role": "user", "content": "words " * 1000}],
        "rows": lambda chain: np.zeros((1, 64), np.float32),
        "idxs": lambda chain: [0, 1],
        "draft": lambda chain: [1],
        "route": lambda chain: "tokenize",
        **dict.fromkeys(("i", "idx", "seq_id", "seq_id_src", "p0", "pos", "n", "delta", "k"), lambda chain: 0),
        **dict.fromkeys(("seq_id_dst", "last", "n_accepted", "n_threads", "p1", "divisor"), lambda chain: 1),
        **dict.fromkeys(("p", "t", "delta", "exponent", "target", "multiplier", "last_n"), lambda chain: 1),
        **dict.fromkeys(("key", "name"), lambda chain: "general.name"),
    }


def text_method_arguments(path: Path, lora: Path, other: Chain) -> dict[str, tuple[Any, ...]]:
    """Return the arguments of methods of the text engine whose parameters have other values there."""
    from cyllama import llama

    gguf = llama.GGUFContext.from_file(path)
    state = other[0].state
    tensor = gguf.tensors()[0].name
    saved, saved_sequence = new_path(), new_path()
    state.save_file(saved, [1, 2])
    state.seq_save_file(saved_sequence, 0, [1, 2])
    windows = llama.training_windows(np.arange(2000, dtype=np.int32) % 100, 256)
    return {
        "GGUFContext.from_bytes": (path.read_bytes()[:1000],),
        "GGUFContext.from_file": (path,),
        "GGUFContext.from_fileobj": (lambda chain: path.open("rb"),),
        "GGUFContext.copy_from": (gguf,),
        "GGUFContext.set": ("my.key", 3),
        "GGUFContext.tensor_info": (tensor,),
        "GGUFContext.tensor_data": (tensor,),
        "GGUFContext.add_tensor": (lambda chain: f"t{time.monotonic_ns()}", np.zeros(32, np.float32)),
        "GGUFContext.set_tensor_type": (tensor, "f32"),
        "GGUFContext.set_tensor_data": (tensor, np.zeros(4, np.float32)),
        "LlamaModel.from_splits": ([path],),
        "LlamaModel.from_user": (gguf, lambda chain: lambda name, kind, shape: np.zeros(shape, np.float32)),
        "LlamaModel.from_fileobj": (lambda chain: path.open("rb"),),
        "LlamaAdapterLora.from_fileobj": (lambda chain: chain[1], lambda chain: lora.open("rb")),
        "LlamaContext.process": (lambda chain: llama.LlamaBatchExt(chain[0]),),
        "LlamaState.set_data": (state.get_data(),),
        "LlamaState.load_file": (saved,),
        "LlamaState.seq_set_data": (state.seq_get_data(0), 1),
        "LlamaState.seq_load_file": (saved_sequence, 1),
        "LlamaBatch.from_tokens": ([1, 2],),
        "LlamaBatchExt.set_pos": (0, 1),
        "LlamaBatchExt.set_embd_token": (0, np.zeros((1, 64), np.float32)),
        "LlamaSampler.add_custom": (Chooser(),),
        "CommonSampler.sample": (lambda chain: other[0], 0),
        "CommonSampler.sample_and_accept_n": (lambda chain: other[0], [0, 1], [1]),
        "Speculative.draft": ([1, 2, 3], 4),
        "Trainer.epoch": windows,
    }


class Llava(Group):
    package = "cyllama.llava"

    def __init__(self) -> None:
        from llava.test_video import CLIP

        from cyllama import llama, llava

        model = llama.LlamaModel(cyllama.models.get("smollm2-135m-instruct"))
        mmproj = cyllama.models.get("vision-dinov2s")
        keep = llava.MtmdContext(mmproj, model)
        ctx = llama.LlamaContext(model, llama.LlamaContextParams(n_ctx=1024))
        bitmap = llava.Bitmap.from_pixels(PICTURE)
        marked = f"{keep.marker} What?"
        kept_chunks = keep.tokenize(marked, [bitmap])
        image = next(chunk for chunk in kept_chunks if chunk.type.name == "IMAGE")
        rows = keep.encode(image)
        speaker, width = speech_builder()

        def mtmd() -> Chain:
            return [llava.MtmdContext(mmproj, model)]

        def chunks() -> Chain:
            chain = mtmd()
            return [chain[0].tokenize(marked, [bitmap]), *chain]

        def chunk() -> Chain:
            chain = chunks()
            return [next(item for item in chain[0] if item.type.name == "IMAGE"), *chain]

        self.builders = {
            "MtmdContext": mtmd,
            "InputChunks": chunks,
            "InputChunk": chunk,
            "MtmdBatch": lambda: (lambda chain: [llava.MtmdBatch(chain[0]), *chain])(mtmd()),
            "Bitmap": lambda: [llava.Bitmap.from_pixels(PICTURE)],
            "AudioGenerator": speaker,
            "Video": lambda: (lambda chain: [llava.Video(chain[0], CLIP), *chain])(mtmd()),
        }
        self.by_name = {
            "chunk": lambda chain: image,
            "chunks": lambda chain: kept_chunks,
            "ctx": lambda chain: ctx if isinstance(chain[0], llava.MtmdContext) else keep,
            "pixels": lambda chain: PICTURE,
            "samples": lambda chain: NOISE,
            "give": lambda chain: lambda i: None,
            "embd": lambda chain: rows,
            "mergeable": lambda chain: True,
            "prompt": lambda chain: "Hello.",
            "h_state": lambda chain: np.zeros(width, np.float32),
            **dict.fromkeys(("pos_0", "i"), lambda chain: 0),
        }
        self.by_method = {
            "MtmdContext.tokenize": (marked, [bitmap]),
            "MtmdContext.tokenize_from_parts": ([("a question", False), bitmap],),
            "Bitmap.from_bytes": (keep, png(PICTURE)),
            "Bitmap.from_file": (keep, lambda chain: picture_file()),
            "InputChunk.load": (image.save(),),
        }


def speech_builder() -> tuple[Builder, int]:
    """Return the builder of a speech generator, and the length of the vectors that it reads."""
    from llava.projectors import projector_file, text_model
    from llava.projectors_audio import AUDIO
    from llava.support import changed, name_audio_token

    from cyllama import llama, llava

    folder, family = Path(FOLDER.name), AUDIO["pockettts_gen"]
    model = llama.LlamaModel(changed(text_model(family, folder), folder / "text.gguf", name_audio_token))
    mtmd = llava.MtmdContext(projector_file("pockettts_gen", family, folder), model)
    params = llama.LlamaContextParams(n_ctx=512, embeddings=True, pooling_type="none")

    def build() -> Chain:
        ctx = llama.LlamaContext(model, params)
        speaker = llava.AudioGenerator(ctx, mtmd)
        speaker.set_input("Hello.", seed=7, out_type="pcm")
        return [speaker, ctx]

    return build, model.n_embd


def png(pixels: np.ndarray) -> bytes:
    """Return the pixels as a PNG file."""
    import io

    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "png")
    return out.getvalue()


def picture_file() -> Path:
    """Return the path of an image file."""
    path = Path(FOLDER.name) / "picture.png"
    if not path.exists():
        path.write_bytes(png(PICTURE))
    return path


class Whisper(Group):
    package = "cyllama.whisper"

    def __init__(self) -> None:
        from data.parakeet import parakeet_model

        from cyllama import whisper

        path, vad_path, parakeet_path = (
            cyllama.models.get("tiny.en"),
            cyllama.models.get("silero-vad"),
            parakeet_model(),
        )

        def context() -> Chain:
            return [whisper.WhisperContext(path)]

        def state() -> Chain:
            chain = context()
            made = whisper.WhisperState(chain[0])
            made.full(NOISE, whisper.WhisperFullParams(no_timestamps=True, max_tokens=4, temperature_inc=0.0))
            return [made, *chain]

        def vad() -> Chain:
            made = whisper.WhisperVad(vad_path)
            made.detect_speech(NOISE)
            return [made]

        def parakeet_state() -> Chain:
            chain: Chain = [whisper.ParakeetContext(parakeet_path)]
            made = whisper.ParakeetState(chain[0])
            made.full(NOISE)
            return [made, *chain]

        self.builders = {
            "WhisperContext": context,
            "WhisperGroup": lambda: [whisper.WhisperGroup((chain := context())[0], 2), *chain],
            "WhisperState": state,
            "WhisperVad": vad,
            "ParakeetContext": lambda: [whisper.ParakeetContext(parakeet_path)],
            "ParakeetState": parakeet_state,
        }
        self.by_name = {
            "samples": lambda chain: NOISE,
            "text": lambda chain: "some words " * 50,
            "token": lambda chain: 1,
            "tokens": lambda chain: [1, 2, 3],
            "language": lambda chain: "en",
            "mel": lambda chain: np.zeros((80, 3000), np.float32),
            "i_segment": lambda chain: 0,
            "i_token": lambda chain: 0,
        }
        self.by_method = {
            "WhisperContext.from_bytes": (path.read_bytes(),),
            "WhisperContext.from_fileobj": (lambda chain: path.open("rb"),),
            "WhisperVad.from_bytes": (vad_path.read_bytes(),),
            "WhisperVad.from_fileobj": (lambda chain: vad_path.open("rb"),),
            "ParakeetContext.from_bytes": (parakeet_path.read_bytes(),),
            "ParakeetContext.from_fileobj": (lambda chain: parakeet_path.open("rb"),),
            "ParakeetState.set_mel": (lambda chain: np.zeros((100, chain[1].model_n_mels), np.float32),),
        }


class StableDiffusion(Group):
    package = "cyllama.sd"

    def __init__(self) -> None:
        from sd.support import flux_params, small

        from cyllama import sd
        from cyllama.models.converters.esrgan import write_safetensors

        path = cyllama.models.get("tiny-flux-random")
        enlarger = write_small_upscaler(write_safetensors)
        self.builders = {
            "SDContext": lambda: [sd.SDContext(flux_params(path, vae_decode_only=False))],
            "Upscaler": lambda: [sd.Upscaler(enlarger)],
        }
        self.by_name = {"image": lambda chain: PICTURE, "params": lambda chain: small()}
        self.by_method = {"SDContext.generate_video": (sd.VideoGenParams(prompt="a", frames=1),)}


def write_small_upscaler(write: Callable[..., Any]) -> Path:
    """Return the path of an upscaler."""
    return cyllama.models.get("realesrgan-x4plus-anime")


class Native(Group):
    package = "cyllama._native"

    def __init__(self) -> None:
        self.builders = {"ThreadPool": lambda: [_native.ThreadPool(1)], "GGUFContext": Llama().builders["GGUFContext"]}
        self.by_name, self.by_method = Llama().by_name, Llama().by_method


GROUPS: dict[str, type[Group]] = {
    "llama": Llama,
    "llava": Llava,
    "whisper": Whisper,
    "sd": StableDiffusion,
    "native": Native,
}
