"""Write the subtitles of a recording. usage: subtitles.py AUDIO SUBTITLES.srt"""

import sys

from cyllama.compat.faster_whisper import WhisperModel


def clock(seconds: float) -> str:
    """Return a time as SRT files have it."""
    minutes, milliseconds = divmod(round(seconds * 1000), 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{milliseconds // 1000:02},{milliseconds % 1000:03}"


model = WhisperModel("tiny.en", device="cpu", compute_type="int8")
segments, info = model.transcribe(sys.argv[1], beam_size=5, vad_filter=True, word_timestamps=True)
print(f"language: {info.language}, {info.duration:.0f} s")
with open(sys.argv[2], "w", encoding="utf-8") as file:
    for number, segment in enumerate(segments, 1):
        words = segment.words
        print(f"[{words[0].start:.1f} to {words[-1].end:.1f}] {segment.text.strip()}")
        file.write(f"{number}\n{clock(segment.start)} --> {clock(segment.end)}\n{segment.text.strip()}\n\n")
