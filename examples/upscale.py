"""Upscale an image four times with RealESRGAN."""

from cyllama.sd import txt2img, upscale

small = txt2img("a purple ring on white", "tiny-shapes", steps=8, seed=1)[0].resize((64, 64))
large = upscale(small, "realesrgan-x4plus-anime")
large.save("large.png")
print(f"{small.width}x{small.height} to {large.width}x{large.height} pixels")
