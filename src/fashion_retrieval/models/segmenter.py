"""GarmentSegmenter: the network that names the garment of each pixel, in torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from fashion_retrieval.config import SegmenterConfig
from fashion_retrieval.errors import ConfigError
from fashion_retrieval.models.garments import BACKGROUND, PERSON, GarmentFinder
from fashion_retrieval.models.light import EFFICIENTNET, PyramidEfficientNetLite

__all__ = ["BACKGROUND", "PERSON", "GarmentSegmenter"]

_WIDTH = 96


class GarmentSegmenter(nn.Module, GarmentFinder):
    """A feature pyramid over EfficientNet-Lite.

    Shape legend: b photos, c classes, h and w the input size.
    """

    exact = False

    def __init__(self, config: SegmenterConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone, widths = _backbone(config.architecture)
        self.lateral = nn.ModuleList(nn.Conv2d(width, _WIDTH, 1) for width in widths)
        self.smooth = nn.ModuleList(_separable(_WIDTH) for _ in widths)
        self.head = nn.Sequential(nn.Dropout2d(0.1), nn.Conv2d(_WIDTH, len(config.classes), 1))

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.parameters()).device

    def forward(self, pixels: Tensor) -> Tensor:
        """(b, 3, h, w) float32, normalized; h and w multiples of 32 -> (b, c, h/4, w/4) logits."""
        features = self.backbone(pixels)
        top = None
        for level, lateral, smooth in zip(features[::-1], self.lateral[::-1], self.smooth[::-1], strict=True):
            here = lateral(level)
            if top is not None:
                here = here + functional.interpolate(top, here.shape[-2:], mode="bilinear", align_corners=False)
            top = smooth(here)
        logits: Tensor = self.head(top)
        return logits

    def shares(self, pixels: Tensor) -> Tensor:
        """(b, 3, h, w) as `forward` takes them -> (b, c, h, w) float32, summing to 1 over the classes."""
        logits = self(pixels).contiguous()  # a class at a time, not a pixel: softmax is faster so
        return functional.interpolate(logits, pixels.shape[-2:], mode="bilinear", align_corners=False).softmax(1)

    @torch.inference_mode()
    def look(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """(1, 3, h, w) float32, normalized -> (c, h, w) float32, summing to 1 over the classes."""
        shares: NDArray[np.float32] = self.shares(torch.from_numpy(pixels).to(self.device))[0].cpu().numpy()
        return shares

    def enlarged(self, maps: NDArray[np.float32], size: tuple[int, ...]) -> NDArray[np.float32]:
        """(c, h, w) float32 -> (c, H, W), bilinear."""
        if maps.shape[1:] == size:
            return maps
        given = torch.from_numpy(np.ascontiguousarray(maps))[None].to(self.device)
        larger = functional.interpolate(given, size, mode="bilinear", align_corners=False)
        found: NDArray[np.float32] = larger[0].cpu().numpy()
        return found


def _backbone(architecture: str) -> tuple[nn.Module, list[int]]:
    """The maps from 1/4 to 1/32 of the photo's sides, and their widths."""
    if architecture == EFFICIENTNET:
        return PyramidEfficientNetLite(), list(PyramidEfficientNetLite.widths)
    import timm

    try:
        backbone: Any = timm.create_model(architecture, features_only=True, out_indices=(1, 2, 3, 4))
    except RuntimeError as error:
        raise ConfigError(f"segmenter architecture {architecture!r} is not known to timm: {error}") from error
    return backbone, backbone.feature_info.channels()


def _separable(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False),
        nn.Conv2d(width, width, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU6(inplace=True),
    )
