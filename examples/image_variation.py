"""Describe an image with one model, and generate a new image from the description with another."""

from PIL import Image, ImageDraw

from cyllama.pipelines import create_variation

image = Image.new("RGB", (224, 224), "white")
ImageDraw.Draw(image).ellipse((45, 45, 180, 180), "red")
variation = create_variation(
    image,
    llm_model="smollm2-135m-instruct",
    mmproj="vision-dinov2s",
    sd_model="tiny-shapes",
    sd_options={"steps": 8, "seed": 1},
)
variation.image.save("variation.png")
print(f"caption: {variation.caption!r}, prompt: {variation.prompt!r}")
for step, seconds in variation.seconds.items():
    print(f"{step:12} {seconds:6.2f} s")
