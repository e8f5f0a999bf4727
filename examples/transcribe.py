"""Speech to text, with the time of each word. usage: transcribe.py SOUND"""

import sys

from cyllama.whisper import transcribe

found = transcribe(sys.argv[1], model="tiny.en", word_timestamps=True)
print(found.text)
for word in found.words[:5]:
    print(f"{word.start:6.2f} to {word.end:5.2f} s {word.word}")
found.save("talk.srt")
