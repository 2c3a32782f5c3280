"""Export a model for another runtime: its graphs, int8, their parity, and the folder that `from_pretrained` loads."""

from __future__ import annotations

import dataclasses
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fashion_retrieval.backends.attach import convert, describe, digest_of, open_graphs, resolve, runtime_of
from fashion_retrieval.checkpoint.export_manifest import PRECISIONS, RUNTIMES, Export
from fashion_retrieval.checkpoint.folder import Bundle, load
from fashion_retrieval.errors import InputError
from fashion_retrieval.export.parity import Labeled, keeps, measure
from fashion_retrieval.model import FashionModel
from fashion_retrieval.models.encoder import Encoder
from fashion_retrieval.models.inference_copy import is_convolutional

_CALIBRATION = 300
"""Photos that the ranges of int8 are taken from; more do not change them much."""
_DRAWN = 16
"""Pictures of noise that cosines are measured on where no photo is given."""


def export_model(
    source: Path,
    out: Path,
    *,
    backend: str,
    precision: str,
    model_id: str,
    calibrate: Sequence[Path] = (),
    labeled: Labeled | None = None,
) -> Export:
    """Write a model folder with an exported model in it, and measure how near that comes to torch.

    The image encoder, the text encoder and the composer are exported; int8 quantizes the image encoder, most of the
    work, and leaves the others in float. A failure leaves `out` as it was.

    Args:
        source: A model folder.
        out: A new or empty folder, or one that holds the same model already: then only its `backend` part is replaced.
        backend: "openvino" or "onnx".
        precision: "fp32", "bf16" (OpenVINO only) or "int8".
        model_id: What the model card calls the model.
        calibrate: Photos like those to be encoded. int8 takes its ranges from them; without labeled photos every fifth
            is kept apart, and parity measured on these.
        labeled: Photos for precision and recall.

    Returns:
        What was exported, with its parity.

    Raises:
        InputError: An unknown backend or precision, no photos for int8, a folder with something else in it.
        ImageError: A photo that can't be read.
        MissingExtraError: The runtime, or for int8 the quantizer, is not installed.
        UnsupportedError: A model that can't be exported.
    """
    check_request(backend, precision, calibrated=bool(calibrate))
    bundle = load(source)
    _check_out(out, bundle)
    apart = list(calibrate[::5]) or _drawn(bundle.encoder)
    staging = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}")
    staging.mkdir(parents=True)
    try:
        convert(bundle, backend, staging)
        if precision == "int8":
            kept = calibrate if labeled else [photo for index, photo in enumerate(calibrate) if index % 5]
            _quantize(bundle.encoder, backend, staging, kept or calibrate)
        exported = describe(bundle, staging, backend=backend, precision=precision)
        model = FashionModel(bundle, model_id=model_id, device="cpu", dtype="float32")
        dtype = resolve(backend, precision, "auto")
        compiled = open_graphs(bundle, staging, backend, dtype)
        fast = FashionModel(compiled, model_id=model_id, device="cpu", dtype=dtype)
        parity = measure(model, fast, apart, labeled)
        exported = dataclasses.replace(exported, parity=parity, default=keeps(precision, parity))
        exported.write(staging)
        _publish(model, staging, out, backend)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return exported


def check_request(backend: str, precision: str, *, calibrated: bool) -> None:
    """Refuse what can't be exported before anything is computed.

    Raises:
        InputError: An unknown backend or precision, a precision that the backend does not have, no photos for int8.
        MissingExtraError: A package is not installed.
    """
    if backend not in RUNTIMES:
        raise InputError(f"a model is exported to 'openvino' or 'onnx', got {backend!r}; use 'openvino'")
    if precision not in PRECISIONS:
        raise InputError(f"precision must be 'fp32', 'bf16' or 'int8', got {precision!r}; use 'fp32'")
    if (backend, precision) == ("onnx", "bf16"):
        raise InputError("ONNX Runtime has no bfloat16 on CPUs; use fp32 or int8, or export to openvino")
    if precision == "int8" and not calibrated:
        raise InputError("int8 takes its ranges from photos, got none; give some like those to be encoded")
    runtime_of(backend).require(quantize=precision == "int8")


def _check_out(out: Path, bundle: Bundle) -> None:
    if out.is_dir() and any(out.iterdir()):
        there = load(out)
        parts = [(model.encoder.fingerprint, digest_of(model.composer)) for model in (there, bundle)]
        if parts[0] != parts[1]:
            raise InputError(f"{out} holds another model; name a new folder")
    elif out.exists() and not out.is_dir():
        raise InputError(f"expected a folder to export to, {out} is a file; name another path")


def _drawn(encoder: Encoder) -> list[Path | Image.Image]:
    generator = np.random.default_rng(0)
    height, width = encoder.image_size
    pictures = generator.integers(0, 256, (_DRAWN, 8, 6, 3), dtype=np.uint8)
    return [Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC) for picture in pictures]


def _quantize(encoder: Encoder, backend: str, folder: Path, photos: Sequence[Path]) -> None:
    """Replace the image graph by its int8 copy."""
    runtime = runtime_of(backend)
    step = -(-len(photos) // _CALIBRATION)
    samples: list[dict[str, NDArray[np.float32]]] = [
        {"pixels": encoder.pixels(photo)[None].numpy()} for photo in photos[::step]
    ]
    attends = not is_convolutional(encoder.clip.visual)
    runtime.quantize(folder / f"image{runtime.SUFFIX}", samples, attends=attends)


def _publish(model: FashionModel, staging: Path, out: Path, backend: str) -> None:
    """Put the graphs into the model folder, in place of older ones."""
    if not out.is_dir() or not any(out.iterdir()):
        model.save_pretrained(out)
    older = staging.with_name(f"{staging.name}.older")
    if (out / backend).exists():
        (out / backend).rename(older)
    staging.rename(out / backend)
    shutil.rmtree(older, ignore_errors=True)
