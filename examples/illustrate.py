"""A language model thinks of a picture for a text, a diffusion model draws it. usage: illustrate.py [TEXT]"""

import sys

from cyllama.pipelines import illustrate

made = illustrate(sys.argv[1] if len(sys.argv) > 1 else "A red ball rolled over the lawn.", sd_options={"seed": 1})
made.image.save("illustration.png")
print(f"illustration.png: {made.prompt}")
