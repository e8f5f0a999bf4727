"""Generate an image from another image: the same shape in another colour."""

from cyllama.sd import StableDiffusion

with StableDiffusion("tiny-shapes") as sd:
    before = sd.txt2img("a large red circle on white", steps=8, seed=1)[0]
    before.save("before.png")
    after = sd.img2img("a large blue circle on white", before, strength=0.9, steps=8, seed=1)[0]
    after.save("after.png")
    print("before.png, after.png")
