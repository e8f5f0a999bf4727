"""``cyllama transcribe``: speech in files to text in files."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import types
import typing
from pathlib import Path
from typing import Any

__all__ = ["add_arguments", "run"]

FORMATS = ("txt", "srt", "vtt", "tsv", "csv", "json", "json-full", "lrc")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; the options are the fields of `TranscribeOptions`."""
    from cyllama.whisper.options import TranscribeOptions, VadOptions

    parser.add_argument("files", nargs="+", metavar="FILE", help="sound files; - is the standard input")
    parser.add_argument("-m", "--model", default="tiny.en", help="name or file of the model (default: tiny.en)")
    parser.add_argument(
        "-f", "--format", default="", help=f"formats to write, separated by commas: {', '.join(FORMATS)}"
    )
    parser.add_argument("-o", "--output-dir", type=Path, help="where to write (default: beside the sound)")
    parser.add_argument("-q", "--quiet", action="store_true", help="no text and no progress on the terminal")
    group = parser.add_argument_group("options of the transcription")
    for option in dataclasses.fields(TranscribeOptions):
        if option.metadata.get("cli", True):
            _add_option(group, "--", option, typing.get_type_hints(TranscribeOptions)[option.name])
    group = parser.add_argument_group("options of --vad-filter, which they turn on")
    for option in dataclasses.fields(VadOptions):
        _add_option(group, "--vad-", option, typing.get_type_hints(VadOptions)[option.name])


def _add_option(group: Any, prefix: str, option: dataclasses.Field[Any], hint: Any) -> None:
    flag = prefix + option.name.replace("_", "-")
    text = option.metadata["help"].replace("%", "%%")
    if hint is bool:
        group.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=text)
        return
    kinds = set(typing.get_args(hint)) if typing.get_origin(hint) in (typing.Union, types.UnionType) else {hint}
    kind: Any = str
    if option.name in ("temperature", "suppress_tokens"):
        kind = _numbers(float if option.name == "temperature" else int)
    elif int in kinds and str not in kinds:
        kind = float if float in kinds else int
    elif float in kinds and str not in kinds:
        kind = float
    group.add_argument(
        flag, type=kind, default=None, choices=option.metadata.get("choices"), help=text, metavar=option.name.upper()
    )


def _numbers(kind: type) -> Any:
    def numbers(text: str) -> Any:
        found = [kind(part) for part in text.split(",")]
        return found[0] if kind is float and len(found) == 1 else found

    numbers.__name__ = f"{kind.__name__}s separated by commas"
    return numbers


def run(arguments: argparse.Namespace) -> int:
    """Transcribe the files one after the other; the exit code is 1 if one of them failed."""
    from cyllama.errors import CyllamaError
    from cyllama.whisper import Whisper
    from cyllama.whisper.options import TranscribeOptions, VadOptions

    options = _given(arguments, TranscribeOptions, "")
    voice = _given(arguments, VadOptions, "vad_")
    if voice:
        options |= {"vad_filter": True, "vad_parameters": voice}
    formats = [name.strip() for name in arguments.format.split(",") if name.strip()]
    for name in formats:
        if name not in FORMATS:
            raise ValueError(f"format is {name!r}, expected some of {', '.join(FORMATS)}")
    if arguments.output_dir is not None:
        arguments.output_dir.mkdir(parents=True, exist_ok=True)
    failed = 0
    with Whisper(arguments.model) as whisper:
        for file in arguments.files:
            try:
                _transcribe(whisper, file, formats, options, arguments)
            except (CyllamaError, OSError, ValueError) as error:
                if len(arguments.files) == 1:
                    raise
                print(f"cyllama: {file}: {str(error).splitlines()[0]}", file=sys.stderr)
                failed = 1
    return failed


def _given(arguments: argparse.Namespace, kind: type, prefix: str) -> dict[str, Any]:
    """The options of one kind that stand on the command line."""
    names = [option.name for option in dataclasses.fields(kind)]
    found = {name: getattr(arguments, prefix + name, None) for name in names}
    return {name: value for name, value in found.items() if value is not None}


def _transcribe(
    whisper: Any, file: str, formats: list[str], options: dict[str, Any], arguments: argparse.Namespace
) -> None:
    bar = _Progress(file) if sys.stderr.isatty() and not arguments.quiet else None

    def show(segment: Any) -> None:
        if bar is not None:
            bar.clear()
        print(f"[{_clock(segment.start)} --> {_clock(segment.end)}] {segment.text}", flush=True)

    audio: Any = sys.stdin.buffer if file == "-" else file
    result = whisper(
        audio,
        on_segment=None if arguments.quiet else show,
        on_progress=None if bar is None else bar.show,
        **options,
    )
    if bar is not None:
        bar.clear()
    source = Path("stdin" if file == "-" else file)
    for name in formats:
        suffix = "full.json" if name == "json-full" else name
        folder = arguments.output_dir or (Path() if file == "-" else source.parent)
        result.save(folder / f"{source.stem}.{suffix}", name)


class _Progress:
    """One line on the terminal."""

    def __init__(self, file: str) -> None:
        self.name = Path(file).name

    def show(self, part: float) -> None:
        width = 30
        filled = round(width * part)
        bar = "#" * filled + "." * (width - filled)
        print(f"\r{self.name} [{bar}] {part:4.0%}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        print("\r\033[K", end="", file=sys.stderr, flush=True)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours:02}:{minutes:02}:{rest:06.3f}"
