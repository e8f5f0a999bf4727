"""A picture from a text. usage: txt2img.py [PROMPT]"""

import sys

from cyllama.sd import txt2img

prompt = sys.argv[1] if len(sys.argv) > 1 else "a large red circle on yellow"
pictures = txt2img(prompt, "tiny-shapes", seed=1, on_step=lambda step, total, seconds: print(f"step {step} of {total}"))
pictures[0].save("picture.png")
print(f"picture.png: {prompt}, seed {pictures.seeds[0]}")
