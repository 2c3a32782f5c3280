"""Convolutions that clip their result at 0 and 6 in the same pass, on a CPU: the same numbers in less time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


def can_clip(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether oneDNN computes this type here."""
    available = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # torch's own
    if device.type != "cpu" or not available:
        return False
    supported: bool = dtype == torch.float32 or (
        dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )
    return supported


class ClippedConv(nn.Module):
    """A convolution and the ReLU6 behind it: (b, c, h, w) -> (b, c', h', w'), for inference.

    Where TensorFlow's padding adds one more to the right and below, the kernel gets zeros to the left and above
    instead, so that no padded copy of the maps is made. Zeros change no sum.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = convolution.weight, convolution.bias
        self.kernel_size, self.stride = list(convolution.kernel_size), list(convolution.stride)
        self.padding = [int(side) for side in convolution.padding]
        self.dilation, self.groups = list(convolution.dilation), convolution.groups
        self.same = type(convolution).__name__ == "Conv2dSame"  # timm's, which need not be imported, or ours
        odd = all(side in (3, 5, 7) for side in self.kernel_size)
        grows = self.same and odd and self.stride == [2, 2] and self.dilation == [1, 1]
        self.grown = functional.pad(self.weight.detach(), (1, 0, 1, 0)) if grows else None

    def forward(self, maps: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c', h', w'), in [0, 6]."""
        weight, padding = self.weight, self.padding
        if self.grown is not None and maps.shape[-1] % 2 == maps.shape[-2] % 2 == 0:
            weight, padding = self.grown, [side // 2 for side in self.kernel_size]
        elif self.same:
            maps, padding = pad_same(maps, self.kernel_size, self.stride, self.dilation), [0, 0]
        geometry = (padding, self.stride, self.dilation, self.groups)
        found: Tensor = torch.ops.mkldnn._convolution_pointwise(
            maps, weight, self.bias, *geometry, "hardtanh", [0.0, 6.0], ""
        )
        return found


def pad_same(maps: Tensor, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> Tensor:
    """TensorFlow's padding of (b, c, h, w): what is odd goes to the right and below."""
    missing = [
        max((-(-size // step) - 1) * step + (side - 1) * gap + 1 - size, 0)
        for size, side, step, gap in zip(maps.shape[-2:], kernel, stride, dilation, strict=True)
    ]
    (top, bottom), (left, right) = ((gap // 2, gap - gap // 2) for gap in missing)
    return functional.pad(maps, (left, right, top, bottom))
