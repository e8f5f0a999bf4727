"""Generate an image, and change it. usage: pictures.py MODEL"""

import sys

from cyllama.compat.diffusers import AutoPipelineForImage2Image, AutoPipelineForText2Image

pipe = AutoPipelineForText2Image.from_pretrained(sys.argv[1], torch_dtype="float32")
image = pipe(
    "a large red circle on white",
    num_inference_steps=8,
    guidance_scale=3.5,
    height=128,
    width=128,
    generator=1,
).images[0]
image.save("first.png")

pipe = AutoPipelineForImage2Image.from_pipe(pipe)
images = pipe(
    "a large blue circle on white",
    image=image,
    strength=0.9,
    num_inference_steps=8,
    num_images_per_prompt=2,
    generator=1,
).images
for number, changed in enumerate(images, 1):
    changed.save(f"changed-{number}.png")
print(f"{image.size}, {len(images)} changed")
