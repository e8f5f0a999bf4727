"""Let one model describe a picture, and another one draw it anew from that."""

from PIL import Image, ImageDraw

from cyllama.pipelines import describe_and_redraw

picture = Image.new("RGB", (224, 224), "white")
ImageDraw.Draw(picture).ellipse((45, 45, 180, 180), "red")
found = describe_and_redraw(picture, sd_options={"seed": 1})
found.image.save("redrawn.png")
print(f"seen: {found.caption!r}, prompt: {found.prompt!r}")
for step, seconds in found.seconds.items():
    print(f"{step:12} {seconds:6.2f} s")
