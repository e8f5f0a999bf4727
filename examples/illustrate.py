"""Write an image prompt for a text with a language model, and generate the image. usage: illustrate.py [TEXT]"""

import sys

from cyllama.pipelines import illustrate

text = sys.argv[1] if len(sys.argv) > 1 else "A red ball rolled over the lawn."
result = illustrate(text, llm_model="smollm2-135m-instruct", sd_model="tiny-shapes", sd_options={"steps": 8, "seed": 1})
result.image.save("illustration.png")
print(f"illustration.png: {result.prompt}")
