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

from cyllama.cli._flags import add_flag

__all__ = ["add_arguments", "run"]

DEFAULT_FORMAT = "txt"  # of an output folder without a format
FAILED, DAMAGED = 1, 3  # exit codes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; options are the fields of `TranscribeOptions` and `VadOptions`."""
    from cyllama.whisper.options import TranscribeOptions, VadOptions
    from cyllama.whisper.writers import FORMATS

    parser.epilog = f"Exit codes: 0 success, {FAILED} a file failed, 2 wrong usage, {DAMAGED} a file is damaged or " \
        "truncated, and what could be read was transcribed."  # fmt: skip
    parser.add_argument("files", nargs="+", metavar="FILE", help="audio files; - for standard input")
    parser.add_argument("-m", "--model", default="tiny.en", help="model name or file (default: tiny.en)")
    parser.add_argument("-f", "--format", default="", help=f"output formats, separated by commas: {', '.join(FORMATS)}")
    parser.add_argument("-o", "--output-dir", type=Path, help="output folder (default: the folder of the audio file); "
                        f"without a format: {DEFAULT_FORMAT}")  # fmt: skip
    parser.add_argument("-q", "--quiet", action="store_true", help="print no text and no progress")
    group = parser.add_argument_group("transcription options")
    for option in dataclasses.fields(TranscribeOptions):
        if option.metadata["flag"]:
            add_flag(group, option.name, option)
    group = parser.add_argument_group("options of --vad-filter, which they turn on")
    for option in dataclasses.fields(VadOptions):
        add_flag(group, f"vad_{option.name}", option)


def run(arguments: argparse.Namespace) -> int:
    """Transcribe the files one after the other; return 1 if one failed, 3 if one is damaged."""
    from cyllama.errors import CyllamaError
    from cyllama.whisper import Whisper
    from cyllama.whisper.options import TranscribeOptions, VadOptions
    from cyllama.whisper.writers import check_format

    options = _given_options(arguments, TranscribeOptions, "")
    vad_options = _given_options(arguments, VadOptions, "vad_")
    if vad_options:
        options |= {"vad_filter": True, "vad_parameters": vad_options}
    formats = [check_format(name.strip()) for name in arguments.format.split(",") if name.strip()]
    if arguments.output_dir is not None:
        arguments.output_dir.mkdir(parents=True, exist_ok=True)
        formats = formats or [DEFAULT_FORMAT]
    failed = False
    damaged: list[str] = []
    with Whisper(arguments.model) as whisper, _damage_warnings(damaged):
        for file, output in zip(arguments.files, _outputs(arguments.files, arguments.output_dir), strict=True):
            if formats and output.name != _stem(file):
                print(f"cyllama: {file}: the output is {output.name}.*", file=sys.stderr)
            try:
                _transcribe(whisper, file, formats, output, options, arguments.quiet)
            except (CyllamaError, OSError, ValueError) as error:
                if len(arguments.files) == 1:
                    raise
                print(f"cyllama: {file}: {str(error).splitlines()[0]}", file=sys.stderr)
                failed = True
    return FAILED if failed else DAMAGED if damaged else 0


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
    whisper: Whisper, file: str, formats: list[str], output: Path, options: dict[str, Any], quiet: bool
) -> None:
    from cyllama.whisper.writers import timestamp

    bar = _Progress(file) if sys.stderr.isatty() and not quiet else None

    def show(segment: Segment) -> None:
        if bar is not None:
            bar.clear()
        print(f"[{timestamp(segment.start)} --> {timestamp(segment.end)}] {segment.text}", flush=True)

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
