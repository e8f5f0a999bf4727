"""Paint the white part of a mask anew, and leave the rest as it is."""

from PIL import Image

from cyllama.sd import StableDiffusion

with StableDiffusion("tiny-shapes") as sd:
    picture = sd.txt2img("a large red circle on white", seed=1)[0]
    mask = Image.new("L", picture.size, 0)
    mask.paste(255, (picture.width // 2, 0, picture.width, picture.height))
    painted = sd.inpaint("a large blue circle on white", picture, mask, strength=1.0, seed=2)[0]
    painted.save("inpainted.png")
    left = (0, 0, picture.width // 2, picture.height)
    print("the left half is as it was:", painted.crop(left).tobytes() == picture.crop(left).tobytes())
