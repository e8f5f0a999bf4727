"""One transcription with one of several packages; prints the seconds of loading and transcribing as JSON.

usage: python -m benchmarks.transcribe_once PACKAGE MODEL FILE [--beam N] [--batch N] [--no-timestamps] [--type NAME]
       [--threads N]

Runs in the Python that has the package: cyllama, faster-whisper or pywhispercpp. All take as many threads.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any


def cyllama(options: argparse.Namespace) -> tuple[float, float, str]:
    """Transcribe with this package."""
    import soundfile  # noqa: F401  # otherwise it is imported with the first file

    from cyllama import set_threads
    from cyllama.whisper import Whisper

    set_threads(options.threads)  # loads ggml's backends: whisper-cli's clock also starts after that
    start = time.perf_counter()
    whisper = Whisper(options.model)
    loaded = time.perf_counter()
    given: dict[str, Any] = {"beam_size": options.beam, "batch_size": options.batch, "temperature": 0.0}
    given["without_timestamps"] = options.no_timestamps
    text = whisper(options.file, **given).text
    return loaded - start, time.perf_counter() - loaded, text


def faster_whisper(options: argparse.Namespace) -> tuple[float, float, str]:
    """Transcribe with faster-whisper, on CTranslate2."""
    from faster_whisper import BatchedInferencePipeline, WhisperModel

    start = time.perf_counter()
    model = WhisperModel(options.model, device="cpu", compute_type=options.type, cpu_threads=options.threads)
    loaded = time.perf_counter()
    if options.batch > 1:
        segments, _ = BatchedInferencePipeline(model).transcribe(
            options.file, beam_size=options.beam, batch_size=options.batch, language="en", temperature=0.0
        )
    else:
        # one temperature: repeated sentences trigger its fallback, which decodes six times
        segments, _ = model.transcribe(options.file, beam_size=options.beam, language="en", temperature=0.0)
    text = "".join(segment.text for segment in segments)
    return loaded - start, time.perf_counter() - loaded, text


def pywhispercpp(options: argparse.Namespace) -> tuple[float, float, str]:
    """Transcribe with pywhispercpp's wheel."""
    from pywhispercpp.model import Model

    start = time.perf_counter()
    model = Model(options.model, n_threads=options.threads, print_progress=False, redirect_whispercpp_logs_to=None)
    loaded = time.perf_counter()
    text = " ".join(segment.text for segment in model.transcribe(options.file))
    return loaded - start, time.perf_counter() - loaded, text


PACKAGES = {"cyllama": cyllama, "faster-whisper": faster_whisper, "pywhispercpp": pywhispercpp}


def main() -> None:
    """Run one package."""
    parser = argparse.ArgumentParser()
    parser.add_argument("package", choices=PACKAGES)
    parser.add_argument("model")
    parser.add_argument("file")
    parser.add_argument("--beam", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--no-timestamps", action="store_true", help="of cyllama; others have their default")
    parser.add_argument("--type", default="default")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    load, transcribe, text = PACKAGES[options.package](options)
    found = {"load": load, "transcribe": transcribe, "total": load + transcribe, "cpu": time.process_time()}
    print(json.dumps(found | {"words": len(text.split())}))


if __name__ == "__main__":
    main()
