#!/bin/bash
# Two kinds of 16-bit TIFF that Pillow opens, and shows as something else.
#
# One would guess: a TIFF that Pillow opens without an error has the pixels that were written, at most cut to 8 bits; and
# that compression can't change them.
# What happens: with planes one after the other and no compression, Pillow reads each plane as if it were interleaved
# pixels and mixes the channels up; the same planes compressed are right, because libtiff decodes them. And 16-bit gray
# whose zero is white (MINISWHITE) comes out as a negative, while the same in 8 bits is inverted as it should be.
# Why it matters: scanners and retouching programs write such files, a garment's color is then anything, and nothing tells.
set -euo pipefail
here=$(mktemp -d)
trap 'rm -rf "$here"' EXIT
python3 -m venv "$here/env"
"$here/env/bin/pip" install --quiet numpy==2.4.6 pillow==13.0.0 tifffile==2026.3.3
"$here/env/bin/python" - <<'PYTHON'
from io import BytesIO

import numpy as np
import PIL
import tifffile
from PIL import Image


def read(array, **options):
    buffer = BytesIO()
    tifffile.imwrite(buffer, array, **options)
    assert np.array_equal(tifffile.imread(BytesIO(buffer.getvalue())), array)
    return np.asarray(Image.open(BytesIO(buffer.getvalue()))).astype(int)


print("Pillow", PIL.__version__, "tifffile", tifffile.__version__)
color = np.random.default_rng(0).integers(0, 65_536, (20, 30, 3), dtype=np.uint16)
wanted, planes = color // 257, np.ascontiguousarray(color.transpose(2, 0, 1))
kinds = {
    "interleaved": read(color, photometric="rgb"),
    "planes, deflate": read(planes, photometric="rgb", planarconfig="separate", compression="zlib"),
    "planes, uncompressed": read(planes, photometric="rgb", planarconfig="separate"),
}
off = {kind: int(np.abs(found - wanted).max()) for kind, found in kinds.items()}
print("largest error of 16-bit color, in levels of 255:", off)
deep = color[..., 0]
zero_is_white = read(deep, photometric="miniswhite")
shallow = (deep // 257).astype(np.uint8)
print("zero is white, 16 bits:", deep[0, :3], "->", zero_is_white[0, :3])
print("zero is white,  8 bits:", shallow[0, :3], "->", read(shallow, photometric="miniswhite")[0, :3])
assert off["interleaved"] <= 1 and off["planes, deflate"] <= 1 and off["planes, uncompressed"] > 200, off
assert np.array_equal(zero_is_white, deep)
assert np.array_equal(read(shallow, photometric="miniswhite"), 255 - shallow.astype(int))
PYTHON
echo "Still so."
