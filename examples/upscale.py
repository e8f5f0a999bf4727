"""Enlarge a picture four times with a network."""

from cyllama.sd import txt2img, upscale

small = txt2img("a purple ring on white", "tiny-shapes", seed=1, width=64, height=64)[0]
large = upscale(small, "realesrgan-x4plus-anime")
large.save("large.png")
print(f"{small.width}x{small.height} pixels became {large.width}x{large.height}")
