"""Generate an image from a spoken prompt. usage: speech_to_image.py AUDIO"""

import sys

from cyllama.pipelines import speech_to_image

result = speech_to_image(
    sys.argv[1], whisper_model="tiny.en", sd_model="tiny-shapes", sd_options={"steps": 8, "seed": 1}
)
result.image.save("spoken.png")
print(f"spoken.png: transcription {result.transcription.text.strip()!r}, prompt {result.prompt!r}")
for step, seconds in result.seconds.items():
    print(f"{step:12} {seconds:6.2f} s")
