"""Flags of llama-cli, whisper-cli and sd-cli: other names of our flags, and those that are refused with a reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cyllama.cli._parser import CommandParser

__all__ = [
    "LLAMA_REFUSED",
    "SD_NAMES",
    "SD_REFUSED",
    "WHISPER_NAMES",
    "WHISPER_REFUSED",
    "add_names",
    "llama_refused",
    "refuse",
]

Reasons = Mapping[str, Iterable[str]]
CHAT_ONLY = "it is an option of `cyllama chat`"
VIDEO_ONLY = "it is an option of `cyllama txt2vid` and `img2vid`"

LLAMA_REFUSED: Reasons = {
    "devices are shown by `cyllama info`": ("--list-devices",),
    "models are shown by `cyllama models list`": ("-cl", "--cache-list"),
    "use `cyllama --version`": ("--version",),
    "use `cyllama completion bash`": ("--completion-bash",),
    "use -v, or CYLLAMA_LOG=debug": ("-lv", "--verbosity", "--log-verbosity", "--log-verbose"),
    "`cyllama chat` is a conversation, `cyllama complete` is not": (
        "-cnv", "--conversation", "-no-cnv", "--no-conversation", "-i", "--interactive", "-if", "--interactive-first",
    ),
    "responses are printed without colours": ("-co", "--color"),
    "the output is plain if it is not a terminal": ("--simple-io",),
    "the chat template of the model adds what is needed": ("--in-prefix", "--in-prefix-bos", "--in-suffix"),
    "redirect the standard output to the file": ("-o", "--output", "--output-file"),
    "videos are read by cyllama.llava": ("--video", "--video-ffmpeg-dir", "--video-fps", "--video-timestamp-interval"),
    "self-extend was made for models of short contexts; take a model with a longer one": (
        "-gan", "--grp-attn-n", "-gaw", "--grp-attn-w",
    ),
    "use --show-timings": ("-ptc", "--print-token-count"),
    "timings are printed only with --show-timings": ("--no-show-timings",),
    "the prompt cache has all tokens, also those of the text": ("--prompt-cache-all",),
    "the prompt is not binary; give it with -f or -p": ("-bf", "--binary-file"),
    "give the file, or the repository with -m hf:org/repo": ("-mu", "--model-url", "-mmu", "--mmproj-url"),
    "give the draft model with --draft-model hf:org/repo": ("-hfd", "-hfrd", "--hf-repo-draft", "--spec-draft-hf"),
    "name the model, such as -m hf:ggml-org/gpt-oss-20b-GGUF": (
        "--gpt-oss-20b-default", "--gpt-oss-120b-default", "--vision-gemma-4b-default", "--vision-gemma-12b-default",
    ),
    "the model runs in this process; for a server: `cyllama serve`": ("--server-base",),
    "use --spec-draft-n-max": ("--draft", "--draft-n", "--draft-max"),
    "use --spec-draft-n-min": ("--draft-min", "--draft-n-min"),
    "read the text into the chat with /read FILE": ("-f", "--file"),
    "the cache of prompts is an option of `cyllama complete`": ("--prompt-cache", "--prompt-cache-ro"),
    "tokens are shown by `cyllama complete --verbose-prompt`": ("--verbose-prompt",),
    "the prompt of a chat is never printed": ("--display-prompt", "--no-display-prompt"),
    CHAT_ONLY: (
        "-st", "--single-turn", "-mli", "--multiline-input", "-sys", "--system-prompt", "-sysf", "--system-prompt-file",
        "--image", "--audio",
    ),
}  # fmt: skip

WHISPER_NAMES: Mapping[str, tuple[str, ...]] = {
    "--n-threads": ("-t", "--threads"),
    "--max-context": ("-mc",),
    "--max-segment-chars": ("-ml", "--max-len"),
    "--split-on-word": ("-sow",),
    "--best-of": ("-bo",),
    "--beam-size": ("-bs",),
    "--audio-ctx": ("-ac",),
    "--entropy-threshold": ("-et", "--entropy-thold"),
    "--logprob-threshold": ("-lpt", "--logprob-thold"),
    "--no-speech-threshold": ("-nth", "--no-speech-thold"),
    "--temperature": ("-tp",),
    "--speaker-turns": ("-tdrz", "--tinydiarize"),
    "--without-timestamps": ("-nt", "--no-timestamps"),
    "--language": ("-l",),
    "--initial-prompt": ("--prompt",),
    "--vad-filter": ("--vad",),
    "--vad-model": ("-vm",),
    "--vad-threshold": ("-vt",),
    "--vad-min-speech-duration-ms": ("-vspd",),
    "--vad-min-silence-duration-ms": ("-vsd",),
    "--vad-max-speech-duration-s": ("-vmsd",),
    "--vad-speech-pad-ms": ("-vp",),
    "--vad-samples-overlap": ("-vo",),
}
"""Our flag: whisper-cli's names."""

WHISPER_REFUSED: Reasons = {
    "use --batch-size with --vad-filter": ("-p", "--processors"),
    "give the start in milliseconds with -ot": ("-on", "--offset-n"),
    "words have their probability in the format json-full": (
        "-wt", "--word-thold", "-ls", "--log-score", "--print-confidence", "-pc", "--print-colors",
    ),
    "give all temperatures, such as --temperature 0,0.2,0.4": ("-tpi", "--temperature-inc"),
    "use CYLLAMA_LOG=debug": ("-debug", "--debug-mode"),
    "channels are not compared; use --speaker-turns with a model trained for it": ("-di", "--diarize"),
    "there is no karaoke script; the format json-full has the words": ("-owts", "--output-words", "-fp", "--font-path"),
    "special tokens are in the format json-full": ("-ps", "--print-special"),
    "progress is shown on terminals": ("-pp", "--print-progress"),
    "the language is in the format json": ("-dl", "--detect-language"),
    "this build has no OpenVINO": ("-oved", "--ov-e-device"),
    "use --word-timestamps": ("-dtw", "--dtw"),
    "use `cyllama --version`": ("--version",),
}  # fmt: skip

SD_NAMES: Mapping[str, tuple[str, ...]] = {
    "--n-threads": ("-t", "--threads"),
    "--sampler": ("--sampling-method",),
    "--batch-size": ("--batch-count",),
    "--image": ("-i", "--init-img"),
    "--mask-image": ("--mask",),
    "--images": ("-r", "--ref-image"),
    "--end-image": ("--end-img",),
    "--frames": ("--video-frames",),
    "--cache": ("--cache-mode",),
    "--cache-scm-mask": ("--scm-mask",),
    "--chroma-use-t5-mask": ("--chroma-enable-t5-mask",),
    "--circular-x": ("--circularx",),
    "--circular-y": ("--circulary",),
    "--keep-clip-on-cpu": ("--clip-on-cpu",),
    "--keep-control-net-on-cpu": ("--control-net-cpu",),
    "--keep-vae-on-cpu": ("--vae-on-cpu",),
    "--clip-l": ("--clip_l",),
    "--clip-g": ("--clip_g",),
    "--clip-vision": ("--clip_vision",),
    "--llm": ("--qwen2vl",),
    "--llm-vision": ("--llm_vision", "--qwen2vl_vision"),
    "--diffusion-flash-attn": ("--diffusion-fa",),
    "--flash-attn": ("--fa",),
    "--hires": ("--hires-scale",),
    "--hires-target-height": ("--hires-height",),
    "--hires-target-width": ("--hires-width",),
    "--high-noise-sampler": ("--high-noise-sampling-method",),
    "--image-cfg-scale": ("--img-cfg-scale",),
    "--lora-dir": ("--lora-model-dir",),
    "--enable-mmap": ("--mmap",),
    "--offload-params-to-cpu": ("--offload-to-cpu",),
    "--rng-type": ("--rng",),
    "--sampler-rng-type": ("--sampler-rng",),
    "--taesd": ("--tae",),
    "--tae-preview-only": ("--taesd-preview-only",),
    "--wtype": ("--type",),
}
"""Our flag: sd-cli's names."""

SD_REFUSED: Reasons = {
    "the mode is the command, such as `cyllama img2img`": ("-M", "--mode"),
    "use `cyllama img2img` or `cyllama inpaint`": ("-i", "--init-img", "--mask", "--image"),
    "use `cyllama edit`": ("-r", "--ref-image"),
    VIDEO_ONLY: (
        "--video-frames", "--fps", "--end-img", "--moe-boundary", "--vace-strength", "--high-noise-steps",
        "--high-noise-cfg-scale", "--high-noise-eta", "--high-noise-sampling-method", "--control-video",
    ),
    "the high-noise model takes --high-noise-steps, -cfg-scale, -sampler and -eta": (
        "--high-noise-guidance", "--high-noise-img-cfg-scale", "--high-noise-skip-layers", "--high-noise-slg-scale",
        "--high-noise-skip-layer-start", "--high-noise-skip-layer-end",
    ),
    "use --circular-x and --circular-y": ("--circular",),
    "use --no-chroma-use-dit-mask": ("--chroma-disable-dit-mask",),
    "use --no-resize-references": ("--disable-auto-resize-ref-image",),
    "each option has a flag, --cache-NAME": ("--cache-option", "--scm-policy"),
    "use `cyllama canny`": ("--canny",),
    "use `cyllama convert`": ("--convert-name",),
    "use `cyllama upscale` on the result": ("--upscale-model", "--upscale-repeats", "--upscale-tile-size"),
    "use `cyllama sd info`": ("--metadata-all", "--metadata-brief", "--metadata-format", "--metadata-raw"),
    "name each file: --embedding WORD=FILE": ("--embd-dir",),
    "name the photographs: --pm-id-images FILE ...": ("--pm-id-images-dir",),
    "name the network: --hires-model-path FILE": ("--hires-upscalers-dir",),
    "previews are shown on the terminal": ("--preview-path", "--preview-noisy"),
    "several images are numbered from 1": ("--output-begin-idx",),
    "the parameters are always in the file; Image.save(pnginfo=None) leaves them out": ("--disable-image-metadata",),
    "use --vae-tiling-tile-size-x and -y": ("--vae-tile-size",),
    "use --vae-tiling-rel-size-x and -y": ("--vae-relative-tile-size",),
    "use --vae-tiling-target-overlap": ("--vae-tile-overlap",),
    "the log has no colours": ("--color",),
    "use `cyllama --version`": ("--version",),
    "a second pass takes two sizes, of which frames have one": (
        "--hires", "--hires-scale", "--hires-height", "--hires-width", "--hires-steps", "--hires-upscaler",
        "--hires-denoising-strength", "--hires-upscale-tile-size",
    ),
    "videos have no such option": (
        "--control-image", "--control-strength", "-b", "--batch-count", "--pm-id-embed-path", "--pm-style-strength",
        "--increase-ref-index", "--strength",
    ),
}  # fmt: skip


def add_names(parser: CommandParser, names: Mapping[str, tuple[str, ...]]) -> None:
    """Give the flags of a parser other names, unless they have another meaning."""
    known = parser._option_string_actions
    for flag, others in names.items():
        action = known.get(flag)
        if action is not None:
            new = [name for name in others if name not in known]
            action.option_strings = [*action.option_strings, *new]
            known.update(dict.fromkeys(new, action))


def refuse(parser: CommandParser, reasons: Reasons) -> None:
    """Refuse the flags that the parser does not have; the first reason of a flag counts."""
    for reason, flags in reasons.items():
        for flag in flags:
            if flag not in parser._option_string_actions:
                parser.refused.setdefault(flag, reason)


def llama_refused(option: Mapping[str, object]) -> str | None:
    """Return why an option of llama.cpp's parser is not a flag; None if it is one."""
    from cyllama.llama.options import ignored_reason, is_http_option, unsafe_reason

    if is_http_option(option):
        return "it is an option of HTTP; `cyllama serve` has its own"
    reason = unsafe_reason(option)
    if reason is not None:
        return f"it {reason}"
    return ignored_reason(option)
