"""The colors of a garment: what share of its mask has which name, the dominant one first.

Every pixel gets a soft name from its CIELAB color and from its surroundings (the garment's mean and spread, the
photo's mean and brightest part), so that a white shirt in the shade stays white and indoor light does not turn gray
into beige. A small network, fitted on labeled photos by `training/fit_colors.py`, does the naming; its weights are
`assets/colors.json`. The share of a name is the mean over the garment's pixels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from fashion_retrieval.errors import InputError
from fashion_retrieval.images.pixels import Pixels, as_pixels
from fashion_retrieval.results import Color

_ASSETS = files("fashion_retrieval").joinpath("assets")
PALETTE: Mapping[str, str] = MappingProxyType(json.loads(_ASSETS.joinpath("palette.json").read_text(encoding="utf-8")))
"""The names a color can have, each with a typical example."""

PAPER_NINE = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "black", "gray")
"""The colors of the paper's category prompts."""

PIXELS = 1024
"""At most this many pixels of a garment are looked at."""

_PART = 4_000_000
_MIN_SHARE = 0.08
_MINOR_SKIN = 0.35

_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
_TO_RELATIVE_XYZ = (_TO_XYZ / _TO_XYZ.sum(axis=1, keepdims=True)).T.astype(np.float32)
_LEVELS = np.arange(256) / 255
_LINEAR_LEVELS = np.where(_LEVELS <= 0.04045, _LEVELS / 12.92, ((_LEVELS + 0.055) / 1.055) ** 2.4).astype(np.float32)

Floats = NDArray[np.float32]


def dominant_colors(
    image: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    *,
    limit: int = 3,
    exclude_skin: bool = True,
    prior: Mapping[str, float] | None = None,
) -> tuple[Color, ...]:
    """The colors of a garment, at most `limit`, largest share first; none for an empty mask, (H, W) bool.

    `image` is the whole photo, HWC uint8 RGB: what is beside the garment tells the light. `exclude_skin` leaves out
    skin-colored pixels where they are a minor part of the mask. `prior` holds the odds of each name before looking at
    the pixels, from a model that saw the garment; None is even.

    `hex` is the mean color of the pixels of that name in this photo, `share` their part of the mask. Names below 8% are
    left out, so shares sum to at most 1.
    """
    if limit < 1:
        raise InputError(f"limit must be at least 1, got {limit}")
    return PixelColors.compute(image, mask, exclude_skin=exclude_skin).colors(limit=limit, prior=prior)


@dataclass(frozen=True, slots=True)
class PixelColors:
    """A garment's pixels, (N, 3) uint8, and their soft names, (N, names), rows sum to 1; N is 0 for an empty mask."""

    rgb: NDArray[np.uint8]
    names: Floats

    @classmethod
    def compute(
        cls,
        image: Pixels | NDArray[np.uint8],
        mask: NDArray[np.bool_],
        *,
        light: Floats | None = None,
        exclude_skin: bool = True,
    ) -> PixelColors:
        """Name the pixels of a garment, for `colors` with any prior; arguments and errors are `dominant_colors`'.

        The photo is upright. `light` is its `illuminant`, where it is known already from another garment.
        """
        photo = as_pixels(image)
        levels = photo.levels
        if levels.ndim != 3 or levels.shape[2] != 3 or levels.dtype != np.uint8:
            raise InputError(f"image must be HWC uint8 RGB, got {levels.dtype} {levels.shape}; convert it first")
        if mask.shape != levels.shape[:2] or mask.dtype != np.bool_:
            raise InputError(f"mask must be bool {levels.shape[:2]} as the image, got {mask.dtype} {mask.shape}")
        model = _model()
        light = illuminant(photo) if light is None else light
        rgb = photo.chosen(_inside(mask))
        lab = to_lab(rgb)
        if exclude_skin and len(rgb):
            kept = model.without_skin(lab)
            rgb, lab = rgb[kept], lab[kept]
        return cls(rgb, model.names(lab, light) if len(rgb) else np.zeros((0, len(model.palette)), np.float32))

    @property
    def dominant(self) -> str | None:
        """The name of the largest share, None for an empty mask."""
        return _model().palette[int(self.names.sum(axis=0).argmax())] if len(self.rgb) else None

    def colors(self, *, limit: int = 3, prior: Mapping[str, float] | None = None) -> tuple[Color, ...]:
        """The colors, as `dominant_colors` describes them."""
        if not len(self.rgb):
            return ()
        names, palette = self.names, _model().palette
        if prior is not None:
            names = names * np.array([prior[name] for name in palette], dtype=np.float32)
            names /= names.sum(axis=1, keepdims=True)
        shares = names.mean(axis=0)
        likeliest = names.argmax(axis=1)
        return tuple(
            Color(palette[i], _mean_hex(self.rgb, likeliest == i, names[:, i]), float(shares[i]))
            for rank, i in enumerate(np.argsort(-shares, kind="stable")[:limit].tolist())
            if rank == 0 or shares[i] >= _MIN_SHARE
        )


def paper_color(colors: Sequence[Color]) -> str:
    """The dominant color as one of the paper's nine, for its prompts.

    The other four names go to the nearest of the nine. White has no hue: gray. Brown is dark orange. Pink is light
    red, or light purple where its hue is bluish. Beige is pale yellow where its hue is visible, gray where it is not.
    Without any color the answer is gray, which claims no hue.
    """
    if not colors:
        return "gray"
    first = colors[0]
    if first.name in PAPER_NINE:
        return first.name
    _, a, b = to_lab(np.frombuffer(bytes.fromhex(first.hex[1:]), dtype=np.uint8)).tolist()
    if first.name == "pink":
        return "red" if b > -0.15 * a else "purple"
    if first.name == "beige":
        return "yellow" if np.hypot(a, b) > 15.0 else "gray"
    return {"white": "gray", "brown": "orange"}[first.name]


def sample(image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Evenly spaced pixels of the mask, (H, W) bool, in an HWC uint8 RGB photo: (N, 3) uint8, N at most `PIXELS`."""
    return Pixels(image).chosen(_inside(mask))


def illuminant(image: Pixels | NDArray[np.uint8]) -> Floats:
    """The light of an upright photo: its mean color and that of its brightest tenth, (6,) float32 CIELAB."""
    pixels = as_pixels(image)
    photo = to_lab(pixels.chosen(_evenly(pixels.height * pixels.width, PIXELS)))
    brightest = photo[photo[:, 0] >= np.quantile(photo[:, 0], 0.9)]
    return np.concatenate([photo.mean(axis=0), brightest.mean(axis=0)])


def to_lab(rgb: NDArray[np.uint8]) -> Floats:
    """CIELAB (D65) of sRGB colors: (..., 3) uint8 -> (..., 3) float32, L in [0, 100], a and b about [-110, 110]."""
    xyz = _product(_LINEAR_LEVELS[rgb], _TO_RELATIVE_XYZ)
    root = np.where(xyz > 216 / 24389, np.cbrt(xyz), xyz * np.float32(24389 / 27 / 116) + np.float32(16 / 116))
    x, y, z = root[..., 0], root[..., 1], root[..., 2]
    lab: Floats = np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1).astype(np.float32)
    return lab


def pixel_features(lab: Floats) -> Floats:
    """What the network sees of a pixel: (N, 3) CIELAB -> (N, 7), lightness, chroma and hue, of the order of 1."""
    lightness, a, b = lab[:, 0], lab[:, 1], lab[:, 2]
    chroma = np.hypot(a, b)
    columns = (lightness / 50 - 1, a / 40, b / 40, chroma / 40, a / (chroma + 6), b / (chroma + 6))
    return np.stack([*columns, chroma / (lightness + 10)], axis=-1)


@dataclass(frozen=True, slots=True)
class ColorModel:
    """The fitted naming: a network of one hidden layer, and the colors of skin as a Gaussian in CIELAB."""

    palette: tuple[str, ...]
    from_pixel: Floats
    from_context: Floats
    hidden_bias: Floats
    to_name: Floats
    name_bias: Floats
    skin_mean: Floats
    skin_precision: Floats

    def names(self, lab: Floats, light: Floats) -> Floats:
        """Soft names of pixels: (N, 3) CIELAB and the photo's light (6,) -> (N, names), rows sum to 1."""
        # The surroundings: the garment's mean and deviation, and the photo's light.
        context = np.concatenate([lab.mean(axis=0) / 50, lab.std(axis=0) / 25, light / 50])
        shared = context @ self.from_context + self.hidden_bias
        hidden = np.maximum(_product(pixel_features(lab), self.from_pixel) + shared, 0)
        logits = _product(hidden, self.to_name) + self.name_bias
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        names: Floats = odds / odds.sum(axis=1, keepdims=True)
        return names

    def without_skin(self, lab: Floats) -> NDArray[np.bool_]:
        """The pixels to keep, (N,) bool: not skin, or all where skin colors are so many that they are the garment."""
        offset = lab - self.skin_mean
        skin = (_product(offset, self.skin_precision) * offset).sum(axis=1) < 1
        return ~skin if skin.mean() <= _MINOR_SKIN else np.ones_like(skin)

    @classmethod
    def from_json(cls, text: str) -> ColorModel:
        """Read `assets/colors.json`."""
        data = json.loads(text)
        palette = tuple(data.pop("palette"))
        return cls(palette, **{name: np.array(value, dtype=np.float32) for name, value in data.items()})

    def to_json(self) -> str:
        """The text that `from_json` reads: one row of weights per line, rounded to four digits."""
        lines = [f'"palette": {json.dumps(list(self.palette))}']
        for name in self.__slots__[1:]:
            rows = np.round(getattr(self, name).astype(np.float64), 4).tolist()
            nested = isinstance(rows[0], list)
            text = "[\n  " + ",\n  ".join(map(json.dumps, rows)) + "\n]" if nested else json.dumps(rows)
            lines.append(f'"{name}": {text}')
        return "{\n" + ",\n".join(lines) + "\n}\n"


def _product(rows: Floats, matrix: Floats) -> Floats:
    """Rows (..., k) times a small (k, m), without BLAS: its threads wait in a loop and take the cores from torch's.

    Computed a column at a time, which is how the rows of the result lie in memory.
    """
    columns = np.ascontiguousarray(rows.reshape(-1, rows.shape[-1]).T)
    product: Floats = np.einsum("kn,km->mn", columns, matrix).T.reshape(*rows.shape[:-1], matrix.shape[1])
    return product


@cache
def _model() -> ColorModel:
    return ColorModel.from_json(_ASSETS.joinpath("colors.json").read_text(encoding="utf-8"))


def _evenly(count: int, most: int) -> NDArray[np.int64]:
    """Positions spread over `range(count)` by the golden ratio, so that they don't fall in step with stripes."""
    if count <= most:
        return np.arange(count)
    return (np.arange(most) * ((5**0.5 - 1) / 2) % 1.0 * count).astype(np.int64)


def _inside(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Places of at most `PIXELS` pixels of a mask, (H, W) bool, evenly spaced; a part of a large mask at a time."""
    flat = mask.reshape(-1)
    parts = [flat[start : start + _PART] for start in range(0, len(flat), _PART)]
    ends = np.cumsum([0, *(np.count_nonzero(part) for part in parts)])
    wanted = _evenly(int(ends[-1]), PIXELS)
    places = np.empty_like(wanted)
    for number, part in enumerate(parts):
        own = (wanted >= ends[number]) & (wanted < ends[number + 1])
        if own.any():
            places[own] = np.flatnonzero(part)[wanted[own] - ends[number]] + number * _PART
    return places


def _mean_hex(rgb: NDArray[np.uint8], own: NDArray[np.bool_], shares: Floats) -> str:
    """The mean of a name's own pixels or, where it has none, of those that it has the largest share of."""
    if not own.any():
        own = shares >= shares.max()
    red, green, blue = (round(level) for level in rgb[own].mean(axis=0).tolist())
    return f"#{red:02x}{green:02x}{blue:02x}"
