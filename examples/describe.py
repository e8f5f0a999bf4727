"""Ask what is in a picture. usage: describe.py [PICTURE]

The small pair of models here knows coloured shapes alone; give the names of a real pair to ask of photographs.
"""

import sys

from PIL import Image, ImageDraw

from cyllama.llava import describe

if len(sys.argv) > 1:
    picture = Image.open(sys.argv[1])
else:
    picture = Image.new("RGB", (224, 224), "white")
    ImageDraw.Draw(picture).ellipse((45, 45, 180, 180), "red")
print(describe(picture, "What is in this picture?", model="smollm2-135m-instruct", mmproj="vision-dinov2s").text)
