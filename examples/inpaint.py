"""Generate the white part of a mask, and keep the rest of the image."""

from PIL import Image

from cyllama.sd import StableDiffusion

with StableDiffusion("tiny-shapes") as sd:
    image = sd.txt2img("a large red circle on white", steps=8, seed=1)[0]
    mask = Image.new("L", image.size, 0)
    mask.paste(255, (image.width // 2, 0, image.width, image.height))
    result = sd.inpaint("a large blue circle on white", image, mask, strength=1.0, steps=8, seed=2)[0]
    result.save("inpainted.png")
    left = (0, 0, image.width // 2, image.height)
    print("left half unchanged:", result.crop(left).tobytes() == image.crop(left).tobytes())
