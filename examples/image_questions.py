"""Ask several questions about an image, which is encoded once."""

import time

from PIL import Image, ImageDraw

from cyllama.llava import Llava

image = Image.new("RGB", (224, 224), "white")
ImageDraw.Draw(image).rectangle((45, 45, 180, 180), "blue")
with Llava("smollm2-135m-instruct", "vision-dinov2s") as llava:
    for question in ("What is in this picture?", "What colour is it?"):
        start = time.perf_counter()
        response = llava.ask(question, images=image, max_tokens=32)
        print(f"{response.text} [{time.perf_counter() - start:.2f} s]")
