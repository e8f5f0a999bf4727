"""``cyllama transcribe``: transcribe audio files to text and subtitles."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cyllama.whisper import AudioInput, Segment, Whisper

from cyllama._paths import expanded
from cyllama.cli._flags import add_flag
from cyllama.cli._foreign_flags import WHISPER_NAMES, WHISPER_REFUSED, add_names, refuse
from cyllama.cli._os_errors import explain
from cyllama.cli._parser import CommandParser

__all__ = ["add_arguments", "run"]

OUTPUTS = {"txt": "txt", "vtt": "vtt", "srt": "srt", "lrc": "lrc", "csv": "csv", "j": "json", "jf": "json-full"}
"""Letters of whisper-cli's flags for formats, and the formats."""
DEFAULT_FORMAT = "txt"  # of an output folder without a format
FAILED, DAMAGED = 1, 3  # exit codes


def add_arguments(parser: CommandParser) -> None:
    """Declare the arguments; options are the fields of `TranscribeOptions` and `VadOptions`."""
    from cyllama.whisper.options import TranscribeOptions, VadOptions
    from cyllama.whisper.writers import FORMATS

    parser.epilog = f"Exit codes: 0 success, {FAILED} a file failed, 2 wrong usage, {DAMAGED} a file is damaged or " \
        "truncated,\nand what could be read was transcribed."  # fmt: skip
    parser.add_argument("files", nargs="*", metavar="FILE", help="audio files; - for standard input")
    parser.add_argument("-m", "--model", default="tiny.en", help="model name or file (default: tiny.en)")
    parser.add_argument("-f", "--format", default="", help=f"output formats, separated by commas: {', '.join(FORMATS)}")
    parser.add_argument("-o", "--output-dir", type=expanded,
                        help="output folder (default: the folder of the audio file); "
                        f"without a format: {DEFAULT_FORMAT}")  # fmt: skip
    parser.add_argument("-q", "--quiet", action="store_true", help="print no text and no progress")
    group = parser.add_argument_group("transcription options")
    for option in dataclasses.fields(TranscribeOptions):
        if option.metadata["flag"]:
            add_flag(group, option.name, option)
    group = parser.add_argument_group("options of --vad-filter, which they turn on")
    for option in dataclasses.fields(VadOptions):
        add_flag(group, f"vad_{option.name}", option)
    _add_whisper_cli(parser)
    parser.set_defaults(usage_error=parser.error)


def _add_whisper_cli(parser: CommandParser) -> None:
    """Declare what whisper-cli has under its own names, with the same meaning."""
    add_names(parser, WHISPER_NAMES)
    group = parser.add_argument_group("options of whisper-cli")
    group.add_argument("--file", action="append", default=[], dest="more_files", metavar="FILE",
                       help="an audio file; so is -f with the name of a file")  # fmt: skip
    group.add_argument("-tr", "--translate", action="store_const", dest="task", const="translate",
                       help="same as --task translate")  # fmt: skip
    for letters, name in OUTPUTS.items():
        group.add_argument(f"-o{letters}", f"--output-{name}", action="append_const", dest="outputs", const=name,
                           help=f"same as -f {name}")  # fmt: skip
    group.add_argument("-of", "--output-file", action="append", default=[], dest="output_files", metavar="NAME",
                       help="file to write without its ending; once for each audio file")  # fmt: skip
    group.add_argument("-ot", "--offset-t", type=int, metavar="MS", help="start in milliseconds")
    group.add_argument("-d", "--duration", type=int, metavar="MS", help="duration in milliseconds; 0: to the end")
    group.add_argument("-nf", "--no-fallback", action="store_true", help="do not try higher temperatures")
    group.add_argument("-np", "--no-prints", action="store_true", help="print no progress")
    group.add_argument("-sns", "--suppress-nst", action="store_true", help="same as --suppress-tokens=-1")
    group.add_argument("-ng", "--no-gpu", action="store_true", help="use the CPU")
    group.add_argument("-dev", "--device", type=int, metavar="N", help="number of the GPU")
    flash = group.add_mutually_exclusive_group()
    flash.add_argument("-fa", "--flash-attn", action="store_true", default=None, help="use flash attention")
    flash.add_argument("-nfa", "--no-flash-attn", action="store_false", dest="flash_attn", help="do not use it")
    refuse(parser, WHISPER_REFUSED)


def _input_files(arguments: argparse.Namespace) -> list[str]:
    """Return the audio files; ``-f`` with the name of a file is one, as with whisper-cli."""
    from cyllama.whisper.writers import FORMATS

    files = [*arguments.files, *arguments.more_files]
    if arguments.format and arguments.format not in FORMATS and Path(arguments.format).is_file():
        files.append(arguments.format)
        arguments.format = ""
    if not files:
        arguments.usage_error("the audio file is missing: FILE, or - for the standard input")
    return files


def _whisper_cli_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the options of whisper-cli's flags."""
    found: dict[str, Any] = {}
    if arguments.offset_t is not None or arguments.duration is not None:
        if arguments.clip_timestamps is not None:
            raise ValueError("--clip-timestamps was given with -ot or -d, expected one of them")
        start, duration = (arguments.offset_t or 0) / 1000, (arguments.duration or 0) / 1000
        found["clip_timestamps"] = [start, start + duration] if duration else [start]
    if arguments.no_fallback:
        given = arguments.temperature or [0.0]
        if len(given) > 1:
            raise ValueError(f"--temperature has {len(given)} values, expected one with --no-fallback")
        found["temperature"] = given[0]
    if arguments.suppress_nst:
        found["suppress_tokens"] = [*(arguments.suppress_tokens or []), -1]
    return found


def run(arguments: argparse.Namespace) -> int:
    """Transcribe the files one after the other; return 1 if one failed, 3 if one is damaged."""
    from cyllama.errors import CyllamaError
    from cyllama.whisper import Whisper
    from cyllama.whisper.options import TranscribeOptions, VadOptions
    from cyllama.whisper.writers import check_format

    files = _input_files(arguments)
    options = _given_options(arguments, TranscribeOptions, "") | _whisper_cli_options(arguments)
    vad_options = _given_options(arguments, VadOptions, "vad_")
    if vad_options:
        options |= {"vad_filter": True, "vad_parameters": vad_options}
    wanted = [*arguments.format.split(","), *(arguments.outputs or [])]
    formats = list(dict.fromkeys(check_format(name.strip()) for name in wanted if name.strip()))
    if arguments.output_dir is not None:
        arguments.output_dir.mkdir(parents=True, exist_ok=True)
        formats = formats or [DEFAULT_FORMAT]
    failed = False
    damaged: list[str] = []
    outputs = _named_outputs(arguments, files) or _outputs(files, arguments.output_dir)
    with Whisper(arguments.model, **_load_options(arguments)) as whisper, _damage_warnings(damaged):
        for file, output in zip(files, outputs, strict=True):
            if formats and output.name != _stem(file) and not arguments.output_files:
                print(f"cyllama: {file}: the output is {output.name}.*", file=sys.stderr)
            try:
                _transcribe(whisper, file, formats, output, options, arguments)
            except (CyllamaError, OSError, ValueError) as error:
                if len(files) == 1:
                    raise
                text = explain(error) if isinstance(error, OSError) else str(error)
                print(f"cyllama: {'' if file in text else f'{file}: '}{text.splitlines()[0]}", file=sys.stderr)
                failed = True
    return FAILED if failed else DAMAGED if damaged else 0


def _load_options(arguments: argparse.Namespace) -> dict[str, Any]:
    given = {"use_gpu": False if arguments.no_gpu else None, "gpu_device": arguments.device,
             "flash_attn": arguments.flash_attn}  # fmt: skip
    return {name: value for name, value in given.items() if value is not None}


def _named_outputs(arguments: argparse.Namespace, files: list[str]) -> list[Path]:
    """Return the paths of ``-of``."""
    names = [expanded(name) for name in arguments.output_files]
    if names and len(names) != len(files):
        raise ValueError(f"-of was given {len(names)} times, expected once for each of {len(files)} audio files")
    if names and arguments.output_dir is not None:
        raise ValueError("-of was given with --output-dir, expected one of them")
    return names


def _stem(file: str) -> str:
    return "stdin" if file == "-" else Path(file).stem


def _outputs(files: list[str], folder: Path | None) -> list[Path]:
    """Return a path without an ending for each file; those of the same name are numbered: talk, talk-2."""
    found: list[Path] = []
    wanted = [(folder or (Path() if file == "-" else Path(file).parent)) / _stem(file) for file in files]
    for path in wanted:
        number, unique = 1, path
        while unique in found or (number > 1 and unique in wanted):
            number += 1
            unique = path.with_name(f"{path.name}-{number}")
        found.append(unique)
    return found


@contextlib.contextmanager
def _damage_warnings(found: list[str]) -> Iterator[None]:
    """Add warnings about damaged audio to a list, and print them as others."""
    from cyllama.errors import DamagedAudioWarning

    with warnings.catch_warnings():
        warnings.simplefilter("always", DamagedAudioWarning)
        show = warnings.showwarning

        def collect(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
            if issubclass(category, DamagedAudioWarning):
                found.append(str(message))
            show(message, category, *place, **more)

        warnings.showwarning = collect
        yield


def _given_options(arguments: argparse.Namespace, kind: type, prefix: str) -> dict[str, Any]:
    """Return the options of a class that were given on the command line."""
    names = [option.name for option in dataclasses.fields(kind)]
    found = {name: getattr(arguments, prefix + name, None) for name in names}
    return {name: value for name, value in found.items() if value is not None}


def _transcribe(
    whisper: Whisper, file: str, formats: list[str], output: Path, options: dict[str, Any], chosen: argparse.Namespace
) -> None:
    from cyllama.whisper.writers import timestamp

    quiet, plain = chosen.quiet, chosen.without_timestamps
    bar = _Progress(file) if sys.stderr.isatty() and not quiet and not chosen.no_prints else None

    def show(segment: Segment) -> None:
        if bar is not None:
            bar.clear()
        times = "" if plain else f"[{timestamp(segment.start)} --> {timestamp(segment.end)}] "
        print(f"{times}{segment.text.strip() if plain else segment.text}", flush=True)

    audio: AudioInput = sys.stdin.buffer if file == "-" else file
    result = whisper(
        audio,
        on_segment=None if quiet else show,
        on_progress=None if bar is None else bar.show,
        **options,
    )
    if bar is not None:
        bar.clear()
    for name in formats:
        suffix = "full.json" if name == "json-full" else name
        result.save(output.with_name(f"{output.name}.{suffix}"), name)


class _Progress:
    """A progress bar on the terminal."""

    def __init__(self, file: str) -> None:
        self.name = Path(file).name

    def show(self, part: float) -> None:
        width = 30
        filled = round(width * part)
        bar = "#" * filled + "." * (width - filled)
        print(f"\r{self.name} [{bar}] {part:4.0%}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        print("\r\033[K", end="", file=sys.stderr, flush=True)
