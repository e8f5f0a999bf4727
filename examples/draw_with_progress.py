"""See a picture grow, step by step, and keep the previews."""

from cyllama.sd import StableDiffusion

with StableDiffusion("tiny-shapes") as sd:
    result = sd.txt2img(
        "a large green ring on white",
        seed=3,
        on_step=lambda step, total, seconds: print(f"step {step} of {total}, {seconds:.2f} s"),
        on_preview=lambda image, step: image.save(f"preview-{step:02}.png"),
        preview="vae",  # in full; "proj" guesses the colours of a small picture, which costs nothing
    )
    result[0].save("ring.png")
