"""What encodes photos, ours and what people would use instead: files -> (N, D) float32 embeddings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

from fashion_retrieval import FashionModel
from fashion_retrieval.models.encoder import Encoder
from fashion_retrieval.models.torch_towers import TorchTowers

Encode = Callable[[Sequence[Path]], NDArray[np.float32]]
BATCH = 32


def readme_loop(folder: Path, device: str) -> Encode:
    """open_clip as its README shows: one photo at a time."""
    encode = batched(folder, device)
    return lambda files: np.concatenate([encode([file]) for file in files])


def batched(folder: Path, device: str, *, bf16: bool = False) -> Encode:
    """open_clip by someone who reads on: batches of 32; `bf16` is its precision="bf16"."""
    precision = "bf16" if bf16 else "fp32"
    model, transform = open_clip.create_model_from_pretrained(
        f"local-dir:{folder.resolve()}", precision=precision, device=device
    )
    model.eval()
    dtype = torch.bfloat16 if bf16 else torch.float32

    def encode(files: Sequence[Path]) -> NDArray[np.float32]:
        rows = []
        with torch.no_grad():
            for start in range(0, len(files), BATCH):
                pixels = [transform(Image.open(file)) for file in files[start : start + BATCH]]
                features = model.encode_image(torch.stack(pixels).to(device, dtype))
                rows.append(functional.normalize(features.float(), dim=-1).cpu().numpy())
        return np.concatenate(rows)

    return encode


def transformers_batched(folder: Path, device: str) -> Encode:
    """transformers' CLIPModel with the image part of CLIPProcessor, batches of 32."""
    from transformers import CLIPImageProcessor, CLIPModel

    model: Any = CLIPModel.from_pretrained(folder)
    model.eval().to(device)
    processor: Any = CLIPImageProcessor.from_pretrained(folder)

    def encode(files: Sequence[Path]) -> NDArray[np.float32]:
        rows = []
        with torch.no_grad():
            for start in range(0, len(files), BATCH):
                images = [Image.open(file).convert("RGB") for file in files[start : start + BATCH]]
                inputs = processor(images=images, return_tensors="pt").to(device)
                features = _tensor(model.get_image_features(**inputs))
                rows.append(functional.normalize(features, dim=-1).cpu().numpy())
        return np.concatenate(rows)

    return encode


def _tensor(found: Any) -> torch.Tensor:  # noqa: ANN401  # by release of transformers
    """Features as transformers 4 returns them; 5 returns an object that holds them."""
    features: torch.Tensor = found if isinstance(found, torch.Tensor) else found.pooler_output
    return features


def fashion_clip(folder: Path, device: str) -> Encode:
    """The fashion-clip package's `encode_images`, with the weights of `folder` in place of its download.

    It was written for transformers 4; where 5 is installed, the model gives it the tensor it expects.
    """
    from fashion_clip.fashion_clip import FashionCLIP
    from transformers import CLIPImageProcessor, CLIPModel

    class Local(FashionCLIP):  # type: ignore[misc]  # the package has no types
        def _load_model(self, name: str, auth_token: str | None = None) -> tuple[Any, Any, str]:
            return CLIPModel.from_pretrained(name), CLIPImageProcessor.from_pretrained(name), ""

    package: Any = Local(str(folder))
    package.model.eval().to(device)
    features = package.model.get_image_features
    package.model.get_image_features = lambda **inputs: _tensor(features(**inputs))
    package.device = device

    def encode(files: Sequence[Path]) -> NDArray[np.float32]:
        rows = np.asarray(package.encode_images([str(file) for file in files], batch_size=BATCH), dtype=np.float32)
        unit: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return unit

    return encode


def ours(folder: Path | str, device: str, *, backend: str = "torch", dtype: str = "float32") -> Encode:
    """This package."""
    model = FashionModel.from_pretrained(folder, device=device, backend=backend, dtype=dtype)
    return lambda files: model.encode(images=list(files), batch_size=BATCH)


def modules(model: FashionModel) -> Encoder:
    """What computes the embeddings of a model whose backend is torch, on its device and in its type."""
    assert isinstance(model.towers, TorchTowers)
    return model.towers.encoder


def from_tensors(encode_image: Callable[[torch.Tensor], torch.Tensor], pixels: torch.Tensor, dtype: torch.dtype) -> Any:  # noqa: ANN401
    """The towers alone on (N, 3, h, w) pixels that are on the device already."""
    context = torch.autocast(pixels.device.type, dtype=dtype) if dtype != torch.float32 else nullcontext()
    with torch.inference_mode(), context:
        found = encode_image(pixels)
    if pixels.device.type == "cuda":
        torch.cuda.synchronize()
    return found
