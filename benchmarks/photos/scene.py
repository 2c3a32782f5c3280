"""A drawn photo of a clothed figure, textured as a camera's noise and cloth are."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageDraw

_TO_STORED = {
    3: Image.Transpose.ROTATE_180,
    6: Image.Transpose.ROTATE_90,
    8: Image.Transpose.ROTATE_270,
}
"""How upright pixels are turned to be stored; each is undone by showing the EXIF orientation."""


def figure(
    width: int, height: int, *, sweater: str = "#b22228", trousers: str = "#263a76", seed: int = 0
) -> NDArray[np.uint8]:
    """A figure in sweater and trousers of these colors by a beige wall: (height, width, 3) uint8 RGB."""
    small = Image.new("RGB", (384, 512) if height > width else (682, 512), (214, 204, 188))
    draw, x = ImageDraw.Draw(small), small.width // 2
    draw.rectangle((0, 440, small.width, 512), fill=(150, 132, 110))
    draw.ellipse((x - 28, 26, x + 28, 100), fill=(222, 178, 150))
    draw.pieslice((x - 32, 18, x + 32, 96), 180, 360, fill=(60, 40, 30))
    draw.polygon([(x - 55, 112), (x + 55, 112), (x + 105, 260), (x + 78, 268), (x + 50, 190), (x + 50, 275),
                  (x - 50, 275), (x - 50, 190), (x - 78, 268), (x - 105, 260)], fill=sweater)  # fmt: skip
    draw.polygon([(x - 50, 272), (x + 50, 272), (x + 46, 470), (x + 10, 470), (x, 320), (x - 10, 470), (x - 46, 470)],
                 fill=trousers)  # fmt: skip
    for side in (-1, 1):
        draw.ellipse((x + side * 30 - 24, 464, x + side * 30 + 24, 490), fill=(30, 28, 28))
    large = np.array(small.resize((width, height), Image.Resampling.BICUBIC))
    rng = np.random.default_rng(seed)
    noise = rng.integers(-5, 6, (512, 512), dtype=np.int16)
    rows = np.arange(0, height, 512)
    for top in rows.tolist():  # a strip at a time, so that drawing takes little memory itself
        strip = large[top : top + 512]
        grain = np.tile(noise, (1, -(-width // 512)))[: len(strip), :width]
        weave = (4 * ((np.arange(width) // 3 + top) % 2) - 2).astype(np.int16)
        strip[:] = np.clip(strip + (grain + weave)[..., None], 0, 255)
    return large


def jpeg(upright: NDArray[np.uint8], *, orientation: int = 1, icc_profile: bytes | None = None) -> bytes:
    """A JPEG file of quality 90 with EXIF data, stored turned as `orientation` says: 1, 3, 6 or 8."""
    image = Image.fromarray(upright)
    if orientation != 1:
        image = image.transpose(_TO_STORED[orientation])
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    stream = BytesIO()
    image.save(stream, "JPEG", quality=90, exif=exif, icc_profile=icc_profile)
    return stream.getvalue()
