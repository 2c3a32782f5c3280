#!/usr/bin/env bash
# Pillow 13 resizes tall photos to other levels than Pillow 12: it goes down first where much height is lost.
#
# The guess: Image.resize has worked across first, then down, for many years, and each pass rounds to 8 bits. The same
# photo, size and filter give the same levels in every release, so embeddings of CLIP models, whose transforms call
# resize, can be compared between machines, and golden values of tests hold.
# What happens: Pillow 13 takes the passes in the other order where more than twice as many rows as columns are lost:
# tall photos, as of dresses and coats, and photos squashed to a square. The first pass rounds, so levels differ; most by
# one, at hard edges by ten and more. Wide photos, and those that are resized one way only, agree to the last level.
# Why it matters: an index that was built with one release and is asked with another holds other inputs for the same
# photo, with no warning, and another package's upper bound (a web page's, a service's) changes the release unnoticed.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for release in 12.3.0 13.0.0; do
    python3 -m venv "$folder/$release"
    "$folder/$release/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: \
        pillow==$release numpy==2.4.6
    "$folder/$release/bin/python" - "$folder/$release.npz" <<'PYTHON'
import sys

import numpy as np
from PIL import Image, __version__

print("pillow", __version__)
coarse = np.random.default_rng(0).integers(0, 256, (50, 30, 3), dtype=np.uint8)
tall = Image.fromarray(np.kron(coarse, np.ones((15, 10, 1), np.uint8)))  # 300 x 750
wide = tall.transpose(Image.Transpose.ROTATE_90)
cases = {
    "tall, shrunk": (tall, (105, 262)),
    "tall, squashed": (tall, (224, 224)),
    "tall, shorter and wider": (tall, (600, 375)),
    "tall, shorter only": (tall, (300, 224)),
    "tall, narrower only": (tall, (112, 750)),
    "wide, shrunk": (wide, (262, 105)),
    "wide, squashed": (wide, (224, 224)),
}
np.savez(
    sys.argv[1],
    **{name: np.asarray(photo.resize(size, Image.Resampling.BICUBIC)) for name, (photo, size) in cases.items()},
)
PYTHON
done

"$folder/13.0.0/bin/python" - "$folder" <<'PYTHON'
import sys

import numpy as np

before, after = (np.load(f"{sys.argv[1]}/{release}.npz") for release in ("12.3.0", "13.0.0"))
found = {}
for name in before:
    difference = np.abs(before[name].astype(int) - after[name])
    found[name] = difference.max()
    print(f"{name:24} {before[name].shape}: {np.mean(difference > 0):6.1%} of the levels differ, by {difference.max()} at most")
expected = dict.fromkeys(found, False) | dict.fromkeys(list(found)[:3], True)
if {name: bool(most) for name, most in found.items()} != expected:
    raise SystemExit("changed: which sizes differ")
PYTHON
