"""Examples and the flags of the short help, by command."""

from __future__ import annotations

__all__ = ["COMMON", "EXAMPLES", "OVERVIEW"]

OVERVIEW = (
    "cyllama demo                                    run all engines once, with small models",
    "cyllama chat                                    chat with a small model",
    "cyllama chat -m hf:Qwen/Qwen2.5-3B-Instruct-GGUF:Q4_K_M",
    "cyllama transcribe talk.mp3 -f srt              write subtitles",
    "cyllama txt2img 'a large red circle' -m tiny-shapes",
    "cyllama serve -m model.gguf                     serve OpenAI's API on port 8080",
)
"""Command lines of ``cyllama --help``, which are no arguments of a parser."""

LANGUAGE = {"-m", "-mm", "--lora", "-c", "-ngl", "-t", "--temp", "--top-p", "--top-k", "-s", "--seed", "-v", "-h"}
IMAGES = {
    "-m", "-o", "-h", "-n", "-W", "-H", "--steps", "--cfg-scale", "--sampler", "--scheduler", "--seed", "--batch-size",
    "--strength", "--lora", "--lora-dir", "--vae", "--image", "--images", "--mask-image", "--frames", "--fps",
    "--n-threads", "--vae-tiling", "--preview", "--progress",
}  # fmt: skip

COMMON: dict[str, set[str]] = {
    "chat": {*LANGUAGE, "-p", "-sys", "-sysf", "--image", "--audio", "--max-tokens", "--show-timings"},
    "complete": {*LANGUAGE, "-p", "-f", "-e", "--max-tokens", "--no-echo", "--prompt-cache", "--show-timings"},
    "describe": {*LANGUAGE, "--prompt", "--max-tokens"},
    "embed": {*LANGUAGE, "--pooling", "-o"},
    "rerank": LANGUAGE,
    "transcribe": {
        "-m", "-f", "-o", "-q", "-h", "-l", "--language", "--task", "--initial-prompt", "--beam-size", "--temperature",
        "--word-timestamps", "--vad-filter", "--clip-timestamps", "--n-threads", "--speaker-turns",
    },
    "serve": {
        "-c", "-m", "--embeddings", "--rerank", "--whisper", "--sd", "--mmproj", "--n-ctx", "--n-parallel", "--host",
        "--port", "--api-key-file", "--allow-no-key", "--memory", "--cors", "--any-name", "--preload", "--allow-pull",
        "-v", "-h",
    },
    **dict.fromkeys(("txt2img", "img2img", "inpaint", "edit", "txt2vid", "img2vid"), IMAGES),
}  # fmt: skip
"""Flags of the short help, of commands with many; one name of a flag suffices."""

EXAMPLES: dict[str, tuple[str, ...]] = {
    "chat": (
        "cyllama chat 'Why is the sky blue?' -m smollm2-135m-instruct",
        "cyllama chat -m hf:Qwen/Qwen2.5-3B-Instruct-GGUF:Q4_K_M -c 8192",
        "cyllama chat -m ollama:llama3.2 -sys 'You answer in one sentence.'",
        "cyllama chat 'What is in the image?' -m model.gguf -mm mmproj.gguf --image photo.jpg",
    ),
    "complete": (
        "cyllama complete 'Once upon a time' -m smollm2-135m-instruct --max-tokens 64",
        "cyllama complete -f prompt.txt -m model.gguf --temp 0 --seed 1",
    ),
    "describe": ("cyllama describe photo.jpg -m hf:ggml-org/SmolVLM-500M-Instruct-GGUF",),
    "embed": ("cyllama embed 'first text' 'second text' -m minilm-l6 -o vectors.npy",),
    "rerank": ("cyllama rerank 'what is a panda?' 'a bear' 'a car' -m tiny-random-reranker",),
    "tokenize": ("cyllama tokenize 'Hello, world' -m smollm2-135m-instruct",),
    "quantize": ("cyllama quantize model-f16.gguf model-q4.gguf q4_k_m",),
    "bench": (
        "cyllama bench -m model.gguf --save before.json",
        "cyllama bench -m model.gguf --compare before.json",
    ),
    "perplexity": ("cyllama perplexity -m model.gguf -f text.txt",),
    "gguf": ("cyllama gguf show model.gguf",),
    "transcribe": (
        "cyllama transcribe talk.mp3",
        "cyllama transcribe talk.mp3 -m large-v3-turbo -f srt,txt -o subtitles",
        "cyllama transcribe interview.wav -m base --language de --task translate",
    ),
    "whisper": ("cyllama whisper quantize base base-q5_0.bin -t q5_0",),
    "txt2img": (
        "cyllama txt2img 'a large red circle on white' -m tiny-shapes -o circle.png",
        "cyllama txt2img 'a lighthouse at dusk' -m model.safetensors --steps 20 --seed 1 -W 512 -H 512",
    ),
    "img2img": ("cyllama img2img 'an oil painting' --image photo.jpg -m model.safetensors --strength 0.6",),
    "inpaint": ("cyllama inpaint 'a red door' --image house.png --mask-image mask.png -m model.safetensors",),
    "edit": ("cyllama edit 'make it night' --images photo.jpg -m kontext.gguf --vae ae.safetensors",),
    "txt2vid": ("cyllama txt2vid 'waves on a beach' -m wan.gguf --vae wan_vae.safetensors --frames 33 -o waves.webp",),
    "img2vid": ("cyllama img2vid 'the cat turns its head' --image cat.png -m wan-i2v.gguf -o cat.webp",),
    "upscale": ("cyllama upscale photo.jpg -o large.png",),
    "canny": ("cyllama canny photo.jpg",),
    "convert": ("cyllama convert model.safetensors model-q8.gguf --type q8_0",),
    "sd": ("cyllama sd info image.png",),
    "serve": (
        "cyllama serve -m hf:Qwen/Qwen2.5-3B-Instruct-GGUF:Q4_K_M",
        "cyllama serve -m model.gguf --mmproj mmproj.gguf --whisper base --sd model.safetensors --memory 16GiB",
        "cyllama serve -c server.toml --host 0.0.0.0 --api-key-file keys.txt",
    ),
    "batch": (
        "cyllama batch requests.jsonl results.jsonl -m smollm2-135m-instruct",
        "cyllama batch requests.jsonl results.jsonl -c server.toml --workers 2",
    ),
    "rpc-server": (
        "cyllama rpc-server",
        "cyllama rpc-server --host 0.0.0.0 --allow 192.168.1.0/24 --port 50052",
    ),
    "wyoming": ("cyllama wyoming -m base --host 0.0.0.0 --allow 192.168.1.0/24",),
    "demo": ("cyllama demo 'a large blue square on white'",),
    "doctor": ("cyllama doctor",),
    "pull": (
        "cyllama pull smollm2-135m-instruct",
        "cyllama pull hf:Qwen/Qwen2.5-3B-Instruct-GGUF:Q4_K_M",
        "cyllama pull large-v3-turbo",
    ),
    "models": ("cyllama models list", "cyllama models remove smollm2-135m-instruct"),
    "info": ("cyllama info --json",),
    "completion": ("cyllama completion bash > ~/.local/share/bash-completion/completions/cyllama",),
}
"""Command lines of each command's help."""
