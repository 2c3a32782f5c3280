#!/usr/bin/env bash
# pycocotools: mask.encode does not ask whether a pixel is zero. It starts a new run wherever the value changes.
#
# The guess: encode() takes a uint8 array and counts any value above zero as the object. A mask of 0 and 255 seems to
# prove it, for it comes back right. If soft values were a problem, encode() would raise an error.
# What happens: the run-length code keeps only where runs end, and runs take turns: outside, inside, outside. A mask of
# more than two values is coded without an error, and every change of value flips inside and outside. So 0 32 223 255
# becomes 0 1 0 1. In a map of labels, 0 1 2 0 becomes 0 1 0 1: label 2 is lost, and the background after it counts.
# Why it matters: a mask that was resized with a smooth filter has soft edges, and so has the probability map of a
# segmenter. The area of its code is plausible, so a check by area passes. But where the values change an odd number of
# times in a column, the background below counts as the object, up to the next change. The code of a soft disk overlaps
# the disk by 0.37, and its box is as high as the whole picture. Threshold before encode().
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: \
    pycocotools==2.0.11 numpy==2.4.6 pillow==13.0.0

"$folder/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import numpy as np
from PIL import Image, ImageDraw
from pycocotools import mask as coco


def encode(array):
    return coco.encode(np.asfortranarray(array, dtype=np.uint8))


def expect(what, observed, expected):
    print(f"{what}: {observed}")
    if observed != expected:
        raise SystemExit(f"changed: {what} was {expected}")


print("pycocotools", version("pycocotools"))

row = [[0, 32, 223, 255, 255, 223, 32, 0]]
print("\nA row with soft edges, as a smooth resize makes it:", row[0])
expect("decode(encode(row))", coco.decode(encode(row))[0].tolist(), [0, 1, 0, 1, 1, 0, 1, 0])
expect("a hard row of 0 and 255", coco.decode(encode([[0, 255, 255, 0]]))[0].tolist(), [0, 1, 1, 0])

labels = [[0, 1, 1, 2, 2, 0]]
print("\nA row of labels:", labels[0])
expect("decode(encode(labels))", coco.decode(encode(labels))[0].tolist(), [0, 1, 1, 0, 0, 1])

print("\nA disk, halved with the bilinear filter:")
image = Image.new("L", (60, 60), 0)
ImageDraw.Draw(image).ellipse((10, 10, 50, 50), fill=255)
soft = np.asarray(image.resize((30, 30), Image.Resampling.BILINEAR))
code, hard, any_value = encode(soft), encode(soft > 127), encode(soft > 0)
expect("area by encode(soft)", int(coco.area(code)), 369)
expect("area above 127", int(coco.area(hard)), 332)
expect("area above 0", int(coco.area(any_value)), 392)
expect("box (left, top, width, height) by encode(soft)", coco.toBbox(code).astype(int).tolist(), [4, 0, 22, 30])
expect("box above 127", coco.toBbox(hard).astype(int).tolist(), [5, 5, 21, 21])
expect("box above 0", coco.toBbox(any_value).astype(int).tolist(), [4, 4, 22, 22])
expect("overlap (IoU) with the mask above 127", round(float(coco.iou([code], [hard], [0])[0, 0]), 2), 0.37)
expect("overlap (IoU) with the mask above 0", round(float(coco.iou([code], [any_value], [0])[0, 0]), 2), 0.4)
PYTHON
