"""Decode long recordings in parts, as voice activity detection does: CPU time and memory by length and container.

usage: python -m benchmarks.decode_parts [--minutes 15,30,60] [--formats m4a,ogg,mp3]

A recording is made by repeating a file, then 500 ranges of 2 s are read in one process each. Prints a table.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import av

from cyllama.media.audio import AudioStream, load_audio
from cyllama.whisper._chunking import audio_chunks, find_speech, speech_chunks

RATE = 16_000
CODECS = {"m4a": "aac", "ogg": "libopus", "mp3": "libmp3lame", "webm": "libopus"}
RANGES, RANGE_SECONDS = 500, 2.0


def write(path: Path, source: Path, minutes: int) -> None:
    """Write a recording of some minutes by repeating a file."""
    samples = load_audio(source)
    codec = CODECS[path.suffix[1:]]
    rate = 48_000 if codec == "libopus" else RATE
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=rate, layout="mono")
        resampler = av.AudioResampler(stream.codec_context.format, "mono", rate, frame_size=stream.frame_size or 1024)
        for i in range(round(minutes * 60 * RATE / len(samples))):
            frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, i * len(samples), Fraction(1, RATE)
            for part in resampler.resample(frame):
                out.mux(stream.encode(part))
        for part in [*resampler.resample(None), None]:
            out.mux(stream.encode(part))


def read(path: Path) -> None:
    """Read the recording once for detection, then its ranges; print CPU seconds and the peak of memory in MB."""
    start = time.process_time()
    stream = AudioStream(path)
    seconds = find_speech(audio_chunks(stream), lambda samples: [(0.0, len(samples) / RATE)])[-1][1]
    step = seconds / RANGES
    ranges = [(i * step, i * step + min(RANGE_SECONDS, step * 0.9)) for i in range(RANGES)]
    n = sum(len(chunk.samples) for chunk in speech_chunks(stream, ranges, 30.0))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    print(f"{time.process_time() - start:.2f} {peak:.0f} {n / RATE:.0f}")


def main() -> None:
    """Run the measurements."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", default="15,30,60")
    parser.add_argument("--formats", default="m4a,ogg,mp3")
    parser.add_argument("--source", type=Path, default=Path("tests/data/recordings/jfk.wav"))
    parser.add_argument("--read", type=Path, help="read one file (used by the script itself)")
    arguments = parser.parse_args()
    if arguments.read:
        return read(arguments.read)
    print("| container | minutes | CPU seconds | peak memory, MB |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for ending in arguments.formats.split(","):
            for minutes in map(int, arguments.minutes.split(",")):
                path = Path(folder) / f"{minutes}.{ending}"
                write(path, arguments.source, minutes)
                command = [sys.executable, "-m", "benchmarks.decode_parts", "--read", str(path)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                seconds, peak, _ = done.stdout.split()
                print(f"| {ending} | {minutes} | {seconds} | {peak} |", flush=True)
                path.unlink()
    return None


if __name__ == "__main__":
    main()
