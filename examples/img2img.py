"""A picture from a picture: the same shape in another colour. usage: img2img.py"""

from cyllama.sd import StableDiffusion

with StableDiffusion("tiny-shapes") as sd:
    circle = sd.txt2img("a large red circle on white", seed=1)[0]
    circle.save("before.png")
    other = sd.img2img("a large blue circle on white", circle, strength=0.9, seed=1)[0]
    other.save("after.png")
    print("before.png, after.png")
