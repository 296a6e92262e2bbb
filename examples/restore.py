"""Take the rain out of a picture: python restore.py RAINY RESTORED."""

import sys

from PIL import Image

import mixdtp_jax

if len(sys.argv) != 3:
  sys.exit(__doc__)
rainy, restored = sys.argv[1:]
restorer = mixdtp_jax.load()  # or load('runs/mine'), load('weights.pth')
picture = Image.open(rainy)
restorer(picture).save(restored, exif=picture.getexif())
