"""A module as it computes fastest: batch norms folded, weights in the type and layout that products are taken in."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from fashion_retrieval.models.clipped import ClippedConv, can_clip
from fashion_retrieval.models.light import (
    DepthwiseSeparable,
    EfficientNetLite,
    InvertedResidual,
    PyramidEfficientNetLite,
)

Module = TypeVar("Module", bound=nn.Module)

_IN_ORDER = (nn.Sequential, DepthwiseSeparable, InvertedResidual, EfficientNetLite, PyramidEfficientNetLite)
_IN_ORDER_TIMM = (
    *(
        ("timm.models._efficientnet_blocks", name)
        for name in ("ConvBnAct", "DepthwiseSeparableConv", "InvertedResidual")
    ),
    *(("timm.models.efficientnet", name) for name in ("EfficientNet", "EfficientNetFeatures")),
)
"""Modules that run a convolution and the batch norm listed after it one after the other, with nothing in between."""


def for_inference(module: Module, device: torch.device, dtype: torch.dtype) -> Module:
    """A copy for inference on `device`; the module stays as it is, and weights that need no change are shared.

    Batch norms behind convolutions become part of their weights, and weights of convolutions are laid out with
    channels last. On a CPU the first maps of an EfficientNet, up to its first stage, stay float32: most of the error of
    bfloat16 arises there, and they take no longer so. Single numbers keep their type, and inputs must have that of the
    first layer. The module is in eval mode.
    """
    ready = _copy(module, lambda tensor: tensor)
    for parent in list(ready.modules()):
        for name, convolution, norm_name, norm in normalized(parent):
            setattr(parent, name, fuse_conv_bn_eval(convolution, norm))
            setattr(parent, norm_name, getattr(norm, "act", nn.Identity()))  # timm's apply an activation too
    placed = _copy(ready, partial(_placed, device=device, dtype=dtype))
    if device.type == "cpu" and dtype != torch.float32:
        for part, source in zip(list(placed.modules()), ready.modules(), strict=True):
            if is_efficientnet(source):
                exact = partial(_placed, device=device, dtype=torch.float32)
                tower: Any = part
                tower.conv_stem, stage = (_copy(layer, exact) for layer in stem_layers(source))
                tower.blocks[0] = nn.Sequential(stage, _Cast(dtype))
    if can_clip(device, dtype):
        for parent in filter(_in_order, list(placed.modules())):
            kept = [(name, part) for name, part in parent.named_children() if not isinstance(part, nn.Identity)]
            for (name, first), (next_name, second) in pairwise(kept):
                if isinstance(first, nn.Conv2d) and isinstance(second, nn.ReLU6):
                    setattr(parent, name, ClippedConv(first))
                    setattr(parent, next_name, nn.Identity())
    return placed


def is_efficientnet(module: nn.Module) -> bool:
    """Whether it is the whole tower: timm's, which need not be imported, or the light one."""
    timm: Any = sys.modules.get("timm.models.efficientnet")
    return type(module) is EfficientNetLite or (timm is not None and isinstance(module, timm.EfficientNet))


def stem_layers(tower: Any) -> tuple[nn.Module, nn.Module]:  # noqa: ANN401  # `is_efficientnet`
    """What stays float32 on a CPU: the stem's convolution and the first stage."""
    return tower.conv_stem, tower.blocks[0]


class _Cast(nn.Module):
    """Cast the maps that follow to another dtype."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, maps: Tensor) -> Tensor:
        return maps.to(self.dtype)


def is_convolutional(module: nn.Module) -> bool:
    """Whether a module spends its time in convolutions, rather than having one to cut a photo into patches."""
    return sum(isinstance(part, nn.Conv2d) for part in module.modules()) > 1


def _copy(module: Module, change: Callable[[Tensor], Tensor]) -> Module:
    """The same modules anew, with changed weights; `copy.deepcopy` would hold all of them twice."""
    new = copy.copy(module)
    parts = vars(module)
    vars(new).update(
        _parameters={
            name: None if value is None else nn.Parameter(change(value.detach()), requires_grad=False)
            for name, value in parts["_parameters"].items()
        },
        _buffers={name: None if value is None else change(value) for name, value in parts["_buffers"].items()},
        _modules={name: None if part is None else _copy(part, change) for name, part in parts["_modules"].items()},
    )
    return new


def normalized(parent: nn.Module) -> Iterator[tuple[str, nn.Conv2d, str, nn.BatchNorm2d]]:
    """Convolutions of a module with the batch norm that comes right after each, with their names."""
    if not _in_order(parent):
        return
    for (name, first), (norm_name, second) in pairwise(list(parent.named_children())):
        if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
            yield name, first, norm_name, second


def _in_order(module: nn.Module) -> bool:
    kind = type(module)
    return kind in _IN_ORDER or (kind.__module__, kind.__name__) in _IN_ORDER_TIMM


def _placed(tensor: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    if not tensor.is_floating_point() or tensor.numel() == 1:
        return tensor.to(device)
    if tensor.ndim != 4:
        return tensor.to(device, dtype)
    return rounded(tensor, dtype).to(device, memory_format=torch.channels_last)


def rounded(kernels: Tensor, dtype: torch.dtype) -> Tensor:
    """(out, in, h, w) in another type, each kernel's sum kept: what rounding one tap takes, the next one gets.

    Neighboring pixels are much alike, so that a kernel's sum counts for more than its taps: of an EfficientNet in
    bfloat16 this takes away two thirds of the error.
    """
    if dtype == kernels.dtype or kernels.shape[2:].numel() == 1:
        return kernels.to(dtype)
    order = kernels.flatten(2).abs().argsort(dim=-1, descending=True)  # the smallest taps are the most precise
    taps = kernels.flatten(2).gather(-1, order)
    rounded = torch.empty_like(taps, dtype=dtype)
    owed = torch.zeros_like(taps[..., 0])
    for place in range(taps.shape[-1]):
        owed = owed + taps[..., place]
        rounded[..., place] = owed.to(dtype)
        owed = owed - rounded[..., place].to(taps.dtype)
    return torch.empty_like(rounded).scatter_(-1, order, rounded).view(kernels.shape)
