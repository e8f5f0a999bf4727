"""Say what is to be drawn. usage: speech_to_image.py SOUND"""

import sys

from cyllama.pipelines import speech_to_image

made = speech_to_image(sys.argv[1], sd_options={"seed": 1})
made.image.save("spoken.png")
print(f"heard: {made.transcription.text.strip()!r}, prompt: {made.prompt!r}, drawn: spoken.png")
for step, seconds in made.seconds.items():
    print(f"{step:12} {seconds:6.2f} s")
