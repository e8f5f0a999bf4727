"""Generate an image with progress and previews."""

from cyllama.sd import StableDiffusion

with StableDiffusion("tiny-shapes") as sd:
    images = sd.txt2img(
        "a large green ring on white",
        steps=10,
        seed=3,
        on_step=lambda step, total, seconds: print(f"step {step} of {total}, {seconds:.2f} s"),
        on_preview=lambda image, step: image.save(f"preview-{step:02}.png"),
        preview="vae",  # decodes at full size; "proj" is a cheap approximation of a small image
        preview_interval=5,
    )
    images[0].save("ring.png")
