"""Summarize a recording. usage: summarize_audio.py AUDIO"""

import sys

from cyllama.pipelines import summarize_audio

summary = summarize_audio(
    sys.argv[1],
    whisper_model="tiny.en",
    llm_model="smollm2-135m-instruct",
    on_text=lambda text: print(text, end="", flush=True),
)
print(f"\n[{summary.transcription.duration:.0f} s of speech, {len(summary.transcription.text.split())} words]")
