"""Export a model for another runtime: its graphs, int8, their accuracy, and the folder that `from_pretrained` loads."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from fashion_retrieval.backends.attach import describe, digests, open_graphs, sources
from fashion_retrieval.backends.confirm import golden_of
from fashion_retrieval.backends.convert import convert, quantize
from fashion_retrieval.backends.runtimes import check_packages, resolve_backend_dtype, runtime_of
from fashion_retrieval.checkpoint.export_manifest import PRECISIONS, RUNTIMES, Export
from fashion_retrieval.checkpoint.folder import load
from fashion_retrieval.errors import InputError
from fashion_retrieval.export.accuracy import Labeled, failed_criterion, measure
from fashion_retrieval.model import FashionModel
from fashion_retrieval.models.encoder import Encoder
from fashion_retrieval.models.inference_copy import is_convolutional

_CALIBRATION_IMAGES = 300
"""Images from which the ranges of int8 are taken; more do not change the ranges much."""
_NOISE_IMAGES = 16
"""Images of noise on which cosines are measured if no image is given."""


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
    """Write a model folder with an exported model in it, and measure its accuracy against torch in float32.

    The image encoder, the text encoder and the composer are exported. int8 quantizes the image encoder, which does most
    of the work, with ranges from the `calibrate` images; the other parts stay in float. Accuracy is measured on the
    labeled images, or on every fifth of `calibrate`, which is then held out, or on noise.

    `out` is a new or empty folder, or holds the same model: then only its `backend` part is replaced. A failed export
    leaves it as it was.
    """
    check_request(backend, precision, calibrated=bool(calibrate))
    bundle = load(source)
    if out.exists() and not out.is_dir():
        raise InputError(f"expected a folder to export to, {out} is a file; name another path")
    if out.is_dir() and any(out.iterdir()) and digests(load(out)) != digests(bundle):
        raise InputError(f"{out} holds another model; name a new folder")
    held_out = list(calibrate[::5]) or _noise(bundle.encoder)
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.", ignore_cleanup_errors=True) as staging:
        graphs = Path(staging, backend)
        graphs.mkdir()
        convert(source, backend, graphs)
        if precision == "int8":
            kept = calibrate if labeled else [image for index, image in enumerate(calibrate) if index % 5]
            _quantize(bundle.encoder, backend, graphs, kept or calibrate)
        model = FashionModel(bundle, model_id=model_id, device="cpu", dtype="float32")
        golden = golden_of(bundle)
        golden.write(graphs, bundle.encoder.fingerprint)
        dtype = resolve_backend_dtype(backend, precision, "auto")
        compiled = FashionModel(open_graphs(bundle, graphs, backend, dtype), model_id=model_id)
        exported = describe(bundle, graphs, backend=backend, precision=precision)
        metrics = measure(model, compiled, held_out, labeled)
        near = golden.cosines(compiled.towers, len(golden.levels))
        metrics |= {"golden_image_cosine": near.image, "golden_text_cosine": near.text}
        passes = failed_criterion(precision, metrics) is None
        if not out.is_dir() or not any(out.iterdir()):
            model.save_pretrained(out)
        exported = dataclasses.replace(exported, parity=metrics, default=passes, sources=sources(out))
        exported.write(graphs)
        if (out / backend).exists():
            (out / backend).rename(Path(staging, "older"))
        graphs.rename(out / backend)
    return exported


def check_request(backend: str, precision: str, *, calibrated: bool) -> None:
    """Refuse a request that can't be met, or whose packages are not installed, before anything is computed."""
    if backend not in RUNTIMES:
        raise InputError(f"a model is exported to 'openvino' or 'onnx', got {backend!r}; use 'openvino'")
    if precision not in PRECISIONS:
        raise InputError(f"precision must be 'fp32', 'bf16' or 'int8', got {precision!r}; use 'fp32'")
    if (backend, precision) == ("onnx", "bf16"):
        raise InputError("ONNX Runtime has no bfloat16 on CPUs; use fp32 or int8, or export to openvino")
    if precision == "int8" and not calibrated:
        raise InputError("int8 takes its ranges from photos, got none; give some like those to be encoded")
    if precision == "bf16" and resolve_backend_dtype(backend, precision, "auto") != "bfloat16":
        raise InputError("bf16 is measured where it is exported, and this processor has none; export it elsewhere")
    check_packages(backend, quantize=precision == "int8")


def _noise(encoder: Encoder) -> list[Path | Image.Image]:
    generator = np.random.default_rng(0)
    height, width = encoder.image_size
    images = generator.integers(0, 256, (_NOISE_IMAGES, 8, 6, 3), dtype=np.uint8)
    return [Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC) for image in images]


def _quantize(encoder: Encoder, backend: str, folder: Path, images: Sequence[Path]) -> None:
    """Replace the image graph by its int8 copy."""
    step = -(-len(images) // _CALIBRATION_IMAGES)
    with TemporaryDirectory() as parent:
        samples = Path(parent, "pixels.npy")
        np.save(samples, np.stack([encoder.pixels(image).numpy() for image in images[::step]]))
        graph = folder / f"image{runtime_of(backend).SUFFIX}"
        quantize(backend, graph, samples, convolutional=is_convolutional(encoder.clip.visual))
