"""Whether a model computes here what it computed where it was made: golden vectors, compared while it loads.

MODEL/openvino/golden.safetensors    pictures, texts, and their embeddings by torch in float32 (`Golden`)

The same graph may give other numbers on another processor, as 8-bit products do that overflow without VNNI. One picture
and one text tell. What came out is kept in huggingface_hub's assets cache, a small file for each model, processor and
set of versions, so that a model is checked once.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fashion_retrieval._utils.files import write_atomically
from fashion_retrieval.errors import WeightsError
from fashion_retrieval.models.towers import Towers

NAME = "golden.safetensors"
_TEXTS = ("a photo of a red striped shirt", "blue jeans", "a long floral summer dress with short sleeves")
_COLORS = ((190, 40, 45), (50, 70, 150), (235, 190, 90))
_NOISE = 4  # levels
_FEWER_FEATURES = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY")
"""Environment variables that let a processor compute as an older one."""
LEAST = {"fp32": 0.9999, "bf16": 0.99, "int8": 0.98}
"""Cosines that are expected where nothing was measured."""
_MARGIN, _SLACK = 2.0, 1e-4
"""A cosine may lack twice what the measured one lacked, and this."""


@dataclass(frozen=True, slots=True, eq=False)
class Golden:
    """Pictures and texts, and what torch makes of them in float32.

    Attributes:
        levels: (n, h, w, 3) uint8, drawn, of the size that the image tower takes.
        images: (n, d) float32, their embeddings, L2-normalized.
        texts: m texts.
        sentences: (m, d) float32, their embeddings, L2-normalized.
    """

    levels: NDArray[np.uint8]
    images: NDArray[np.float32]
    texts: tuple[str, ...]
    sentences: NDArray[np.float32]

    @classmethod
    def of(cls, towers: Towers, size: tuple[int, int], count: int = len(_TEXTS)) -> Self:
        """Of towers in float32 that take pictures of a height and width; `count` of each kind, at most three."""
        levels, texts = _drawn(size, count), _TEXTS[:count]
        return cls(levels, towers.encode_images(list(levels)), texts, towers.encode_texts(list(texts)))

    @classmethod
    def read(cls, folder: Path, encoder: str, size: tuple[int, int], width: int) -> Self:
        """From an exported model's folder; a WeightsError unless they are those of the encoder of this fingerprint.

        Pictures are of a height and width, embeddings of a width.
        """
        path, expected, owner = folder / NAME, "pictures and their embeddings", None
        try:
            with safe_open(path, "np") as file:
                told = json.loads(file.metadata()["about"])
                texts, owner = tuple(map(str, told["texts"])), told["encoder"]
                golden = cls(file.get_tensor("levels"), file.get_tensor("images"), texts, file.get_tensor("sentences"))
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise WeightsError(f"{path} must hold {expected}, got {error!r:.120}; export the model again") from error
        shapes = golden.levels.shape, golden.images.shape, golden.sentences.shape
        count = len(golden.levels) if golden.levels.ndim else 0
        if not (count and texts) or shapes != ((count, *size, 3), (count, width), (len(texts), width)):
            raise WeightsError(
                f"{path} must hold {expected}, got {', '.join(map(str, shapes))}; export the model again"
            )
        if owner != encoder:
            got = f"golden vectors of another encoder ({owner!s:.12}…) than the graphs beside it ({encoder:.12}…)"
            raise WeightsError(f"{path} holds {got}; export the model again")
        return golden

    def write(self, folder: Path, encoder: str) -> None:
        """Write them beside the graphs made from the encoder of a fingerprint; the same bytes each time."""
        arrays = {"levels": self.levels, "images": self.images, "sentences": self.sentences}
        about = json.dumps({"encoder": encoder, "texts": self.texts})
        with write_atomically(folder / NAME) as path:  # one word alone: several come in another order each time
            path.write_bytes(
                save({name: np.ascontiguousarray(given) for name, given in arrays.items()}, {"about": about})
            )

    def cosines(self, towers: Towers, count: int = 1) -> Cosines:
        """How near towers come to them: the least cosine of the first pictures, and of the first texts."""
        images = towers.encode_images(list(self.levels[:count])), self.images[:count]
        sentences = towers.encode_texts(list(self.texts[:count])), self.sentences[:count]
        least = [float((got * expected).sum(axis=1, dtype=np.float64).min()) for got, expected in (images, sentences)]
        return Cosines(*np.nan_to_num(least, nan=-1.0).tolist())


@dataclass(frozen=True, slots=True)
class Cosines:
    """Between embeddings computed here and those by torch in float32: of a picture, and of a text."""

    image: float
    text: float

    def failed(self, least: Cosines) -> str | None:
        """In words, what is too far off; None if nothing is."""
        for what, got, expected in (("picture", self.image, least.image), ("text", self.text, least.text)):
            if got < expected:
                return f"a drawn {what} has a cosine of {got:.4f} to float32, expected at least {expected:.4f}"
        return None


def promised(precision: str, parity: Mapping[str, float]) -> Cosines:
    """The least cosines that an export lets expect: what was measured when it was made, with a margin.

    Twice what the worst photo or golden vector lacked to 1, and 0.0001 more; `LEAST` where nothing was measured.
    """

    def least(kind: str) -> float:
        measured = [parity[name] for name in (f"{kind}_cosine_min", f"golden_{kind}_cosine") if name in parity]
        return 1 - _MARGIN * (1 - min(measured)) - _SLACK if measured else LEAST[precision]

    return Cosines(least("image"), least("text"))


def checked(compute: Callable[[], Cosines], key: Sequence[str], packages: Sequence[str], where: str = "") -> Cosines:
    """The cosines that `compute` gives, or gave before for the same model (`key`), packages, processor and device."""
    path = _cache_path((*key, *map(_version, ("fashion-retrieval", *packages)), where))
    try:
        found = json.loads(path.read_bytes())
        return Cosines(float(found["image"]), float(found["text"]))
    except (OSError, ValueError, KeyError, TypeError):
        pass  # never checked, or half a file of another program
    cosines = compute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_atomically(path) as part:
            part.write_text(json.dumps({"image": cosines.image, "text": cosines.text}), encoding="utf-8")
    except OSError:
        pass  # the next process checks again
    return cosines


def stamp(folder: Path) -> str:
    """Tells a model folder's files from what they were: SHA-256 of names, sizes and times; none is read."""
    paths = sorted(
        {path.resolve() for kind in ("*.safetensors", "*/*.safetensors", "*.json") for path in folder.glob(kind)}
    )
    return _digest([(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths])


def warn(reason: str) -> None:
    """Say once, in one line, that a model computes otherwise than it would."""
    warnings.warn(reason, RuntimeWarning, stacklevel=4)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # ONNX Runtime comes under several names, as onnxruntime-gpu
        return str(import_module(package).__version__)


@cache
def _processor() -> str:
    """Name and features of the processor; on Linux of the first one."""
    lines = [platform.machine(), platform.processor()]
    path = Path("/proc/cpuinfo")
    if path.is_file():
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                if not line.strip():
                    break
                if line.startswith(("model", "flags", "Features", "CPU part", "CPU implementer")):
                    lines.append(line)
    return "".join(lines)


def _cache_path(key: Sequence[str]) -> Path:
    from huggingface_hub import constants

    told = _digest([*key, _processor(), [os.environ.get(name) for name in _FEWER_FEATURES]])
    return Path(constants.HF_ASSETS_CACHE, "fashion_retrieval", "self_check", f"{told[:32]}.json")


def _digest(told: object) -> str:
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def _drawn(size: tuple[int, int], count: int) -> NDArray[np.uint8]:
    """(count, height, width, 3): a shirt of another color and pattern each, before a background from light to dark."""
    height, width = size
    generator = np.random.default_rng(0)  # the noise of a camera: without it int8 is far off on even areas
    y, x = np.linspace(0, 1, height)[:, None, None], np.linspace(-1, 1, width)[None, :, None]
    body, sleeves = (abs(x) < 0.4) & (y > 0.2) & (y < 0.9), (abs(x) < 0.4 + y) & (abs(x) < 0.8) & (y > 0.2) & (y < 0.45)
    neck = x**2 + (4 * (y - 0.2)) ** 2 < 0.02
    background = np.array([230, 225, 215]) - 60 * y
    pictures = []
    for color, across, down in list(zip(_COLORS, (0, 40, 25), (60, 0, 35), strict=True))[:count]:
        pattern = 0.75 + 0.25 * np.sign(np.sin(across * x + 1) * np.cos(down * y) + 0.3)
        shirt = np.where((body | sleeves) & ~neck, np.array(color) * pattern * (1 - 0.3 * x**2), background)
        pictures.append(shirt + _NOISE * generator.standard_normal((height, width, 1)))
    return np.stack(pictures).clip(0, 255).round().astype(np.uint8)
