"""Names of models that other programs use, and where the models are on the Hugging Face hub."""

from __future__ import annotations

__all__ = ["CHAT_MODELS", "IMAGE_MODELS", "WHISPER_MODELS", "hub_name", "where_to_get"]

SHORTEST = 4  # letters of a name that is compared with the start of others
_WHISPER_NAMES = (
    "tiny", "tiny.en", "base", "base.en", "small", "small.en", "medium", "medium.en", "large-v1", "large-v2",
    "large-v3", "large-v3-turbo",
)  # fmt: skip
WHISPER_MODELS = {
    **{name: f"hf:ggerganov/whisper.cpp/ggml-{name}.bin" for name in _WHISPER_NAMES},
    "large": "hf:ggerganov/whisper.cpp/ggml-large-v3.bin",
    "turbo": "hf:ggerganov/whisper.cpp/ggml-large-v3-turbo.bin",
    "distil-small.en": "hf:distil-whisper/distil-small.en/ggml-distil-small.en.bin",
    "distil-medium.en": "hf:distil-whisper/distil-medium.en/ggml-medium-32-2.en.bin",
    "distil-large-v2": "hf:distil-whisper/distil-large-v2/ggml-large-32-2.en.bin",
    "distil-large-v3": "hf:distil-whisper/distil-large-v3-ggml/ggml-distil-large-v3.bin",
    "distil-large-v3.5": "hf:distil-whisper/distil-large-v3.5-ggml/ggml-model.bin",
}
"""Names of openai-whisper and faster-whisper, and the files in whisper.cpp's format."""

CHAT_MODELS = {
    "llama3.3": "hf:bartowski/Llama-3.3-70B-Instruct-GGUF",
    "llama3.2": "hf:bartowski/Llama-3.2-3B-Instruct-GGUF",
    "llama3.2:1b": "hf:bartowski/Llama-3.2-1B-Instruct-GGUF",
    "llama3.1": "hf:bartowski/Meta-Llama-3.1-8B-Instruct-GGUF",
    "llama3": "hf:bartowski/Meta-Llama-3-8B-Instruct-GGUF",
    "qwen3": "hf:Qwen/Qwen3-8B-GGUF",
    "qwen3:4b": "hf:Qwen/Qwen3-4B-GGUF",
    "qwen3:0.6b": "hf:Qwen/Qwen3-0.6B-GGUF",
    "qwen2.5": "hf:Qwen/Qwen2.5-7B-Instruct-GGUF",
    "qwen2.5:3b": "hf:Qwen/Qwen2.5-3B-Instruct-GGUF",
    "qwen2.5:1.5b": "hf:Qwen/Qwen2.5-1.5B-Instruct-GGUF",
    "qwen2.5:0.5b": "hf:Qwen/Qwen2.5-0.5B-Instruct-GGUF",
    "qwen2.5-coder": "hf:Qwen/Qwen2.5-Coder-7B-Instruct-GGUF",
    "qwen2.5vl": "hf:ggml-org/Qwen2.5-VL-7B-Instruct-GGUF",
    "gemma3": "hf:ggml-org/gemma-3-4b-it-GGUF",
    "gemma3:1b": "hf:ggml-org/gemma-3-1b-it-GGUF",
    "gemma2": "hf:bartowski/gemma-2-9b-it-GGUF",
    "mistral": "hf:bartowski/Mistral-7B-Instruct-v0.3-GGUF",
    "mistral-nemo": "hf:bartowski/Mistral-Nemo-Instruct-2407-GGUF",
    "phi3": "hf:microsoft/Phi-3-mini-4k-instruct-gguf",
    "phi3.5": "hf:bartowski/Phi-3.5-mini-instruct-GGUF",
    "phi4": "hf:bartowski/phi-4-GGUF",
    "gpt-oss": "hf:ggml-org/gpt-oss-20b-GGUF",
    "deepseek-r1": "hf:bartowski/DeepSeek-R1-Distill-Qwen-7B-GGUF",
    "tinyllama": "hf:TheBloke/TinyLlama-1.1B-Chat-v1.0-GGUF",
    "smollm2": "hf:bartowski/SmolLM2-1.7B-Instruct-GGUF",
    "smolvlm": "hf:ggml-org/SmolVLM-500M-Instruct-GGUF",
    "nomic-embed-text": "hf:nomic-ai/nomic-embed-text-v1.5-GGUF",
    "bge-m3": "hf:gpustack/bge-m3-GGUF",
    "bge-reranker-v2-m3": "hf:gpustack/bge-reranker-v2-m3-GGUF",
}
"""Names of Ollama and of the model families, without the quantization."""

IMAGE_MODELS = {
    "stable-diffusion": "hf:stable-diffusion-v1-5/stable-diffusion-v1-5",
    "stable-diffusion-v1-5": "hf:stable-diffusion-v1-5/stable-diffusion-v1-5",
    "sd1.5": "hf:stable-diffusion-v1-5/stable-diffusion-v1-5",
    "sd-turbo": "hf:stabilityai/sd-turbo",
    "sdxl": "hf:stabilityai/stable-diffusion-xl-base-1.0",
    "sdxl-turbo": "hf:stabilityai/sdxl-turbo",
}


def hub_name(name: str) -> str | None:
    """Return where a well-known model is on the hub, such as ``hf:Qwen/Qwen3-8B-GGUF``; None if it is not known.

    Parameters
    ----------
    name : str
        Case-insensitive; spellings such as ``Llama-3.2`` and ``llama-3.2-3b-instruct``, and other sizes of a known
        family, are accepted.
    """
    key = _key(name)
    for known, found in {**CHAT_MODELS, **IMAGE_MODELS}.items():
        if key == _key(known):
            return found
    for known, found in WHISPER_MODELS.items():
        if key in (_key(known), _key(f"whisper-{known}")):
            return found
    for found in (*CHAT_MODELS.values(), *IMAGE_MODELS.values()):
        if len(key) >= SHORTEST and _key(found.rpartition("/")[2]).startswith(key):
            return found
    families = [known for known in CHAT_MODELS if len(known) >= SHORTEST and key.startswith(_key(known))]
    return CHAT_MODELS[max(families, key=len)] if families else None


def where_to_get(name: str) -> str | None:
    """Return a sentence that says where a well-known model is; None if it is not known."""
    found = hub_name(name)
    if found is None:
        return None
    quantized = f"{found}:Q4_K_M" if found in CHAT_MODELS.values() else found
    return f"it is on the Hugging Face hub: {quantized}"


def _key(name: str) -> str:
    return "".join(sign for sign in name.casefold() if sign.isalnum() or sign == ".")
