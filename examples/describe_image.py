"""Describe an image. usage: describe_image.py [IMAGE]

The small models recognize coloured shapes only. Use a larger model and its mmproj file for photographs.
"""

import sys

from PIL import Image, ImageDraw

from cyllama.llava import describe

if len(sys.argv) > 1:
    image = Image.open(sys.argv[1])
else:
    image = Image.new("RGB", (224, 224), "white")
    ImageDraw.Draw(image).ellipse((45, 45, 180, 180), "red")
print(describe(image, "What is in this picture?", model="smollm2-135m-instruct", mmproj="vision-dinov2s").text)
