"""Transcribe a recording with word timestamps. usage: transcribe.py AUDIO"""

import sys

from cyllama.whisper import transcribe

result = transcribe(sys.argv[1], model="tiny.en", word_timestamps=True)
print(result.text)
for word in result.words[:5]:
    print(f"{word.start:6.2f} to {word.end:5.2f} s {word.word}")
result.save("talk.srt")
