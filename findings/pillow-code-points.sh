#!/bin/bash
# Pillow hands out HDR and wide-gamut photos as if they were sRGB, and tells nobody.
#
# One would guess: a photo without an ICC profile (`info` has no "icc_profile") is sRGB, as in the browser.
# What happens: PNG's cICP and the nclx of AVIF say in code points that the numbers are, say, BT.2020 with PQ. Pillow
# neither converts by them nor passes them on: the same levels come out, and `info` is that of an sRGB file. White at 203
# nits is level 148 then, a gray.
# Why it matters: screenshots on HDR screens and photos of phones are such files; a white shirt is named gray. One has to
# read the chunk or the box oneself.
set -euo pipefail
here=$(mktemp -d)
trap 'rm -rf "$here"' EXIT
python3 -m venv "$here/env"
"$here/env/bin/pip" install --quiet pillow==13.0.0
"$here/env/bin/python" - <<'PYTHON'
import struct
import zlib
from io import BytesIO

import PIL
from PIL import Image, features

print("Pillow", PIL.__version__, "libavif", features.version("avif"))
white = Image.new("RGB", (64, 64), (148, 148, 148))  # diffuse white, 203 nits, in PQ


def written(kind):
    buffer = BytesIO()
    white.save(buffer, kind)
    return buffer.getvalue()


def png(points):
    body = b"cICP" + bytes(points)
    chunk = struct.pack(">L", 4) + body + struct.pack(">L", zlib.crc32(body))
    return written("PNG")[:33] + chunk + written("PNG")[33:]


def avif(primaries, transfer):
    data = written("AVIF")
    place = data.index(b"colrnclx") + 8
    return data[:place] + struct.pack(">HH", primaries, transfer) + data[place + 4 :]


for kind, srgb, hdr in (("PNG", png([1, 13, 0, 1]), png([9, 16, 0, 1])), ("AVIF", avif(1, 13), avif(9, 16))):
    first, second = Image.open(BytesIO(srgb)), Image.open(BytesIO(hdr))
    print(kind, "as sRGB", first.getpixel((0, 0)), first.info, "| as BT.2020 PQ", second.getpixel((0, 0)), second.info)
    assert first.getpixel((0, 0)) == second.getpixel((0, 0)) and first.info == second.info
PYTHON
echo "Still so."
