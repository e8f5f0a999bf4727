"""Generate an image from a text. usage: txt2img.py [PROMPT]"""

import sys

from cyllama.sd import txt2img

prompt = sys.argv[1] if len(sys.argv) > 1 else "a large red circle on yellow"
images = txt2img(prompt, "tiny-shapes", seed=1, on_step=lambda step, total, seconds: print(f"step {step} of {total}"))
images[0].save("image.png")
print(f"image.png: {prompt}, seed {images.seeds[0]}")
