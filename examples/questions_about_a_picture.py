"""Ask several questions about a picture, which is encoded once."""

from PIL import Image, ImageDraw

from cyllama.llava import Llava

picture = Image.new("RGB", (224, 224), "white")
ImageDraw.Draw(picture).rectangle((45, 45, 180, 180), "blue")
with Llava("smollm2-135m-instruct", "vision-dinov2s") as llava:
    for question in ("What is in this picture?", "What colour is it?"):
        answer = llava.ask(question, images=picture, max_tokens=32)
        print(f"{answer.text}\n[{answer.timings.encode:.2f} s in the encoder, {answer.timings.total:.2f} s in all]")
