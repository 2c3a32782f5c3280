"""Weights that bfloat16 holds exactly, so that a model computes with the same ones in either type.

Most of what bfloat16 changes about an embedding of a convolutional tower comes from rounding its weights and biases,
not from what passes between its layers. Rounded once, before the model is measured and published, they cost nothing
later. What rounding one weight takes from a layer's output, the weights after it give back as far as they can, by the
second moments of the layer's inputs on real photos (GPTQ: Frantar et al., 2023).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from timm.models.efficientnet import EfficientNet
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from fashion_retrieval.models.encoder import Encoder
from fashion_retrieval.models.inference_copy import normalized, stem_layers
from training.data.crops import read_crop
from training.data.manifest import labeled_samples

Layer = nn.Conv2d | nn.Linear

PHOTOS = 192
"""Labeled garments whose inputs are looked at."""
_DAMPING = 0.01
"""Added to the second moments' diagonal, in its means."""
_POSITIONS = 4096
"""Of a layer's maps that are looked at in a batch, spread evenly."""
_BATCH = 4


def garments(encoder: Encoder, root: Path) -> Iterator[Tensor]:
    """Batches of the labeled garments of the open data pack's train split, as recognition shows them to the tower."""
    samples = labeled_samples(root, "train")
    chosen = samples[:: max(1, len(samples) // PHOTOS)][:PHOTOS]
    for start in range(0, len(chosen), _BATCH):
        photos = (read_crop(sample, masked=True) for sample in chosen[start : start + _BATCH])
        yield torch.stack([encoder.pixels(photo) for photo in photos])


def rounded_encoder(encoder: Encoder, batches: Iterable[Tensor]) -> Encoder:
    """A copy whose image tower computes with weights of bfloat16, each batch norm's scale having become part of them.

    The architecture stays: what is left of a batch norm is the bias that it adds.

    The encoder is in eval mode, float32, on the CPU; batches are (b, 3, h, w) float32.
    """
    copied = copy.deepcopy(encoder)
    vars(copied).pop("fingerprint", None)
    with torch.no_grad():
        layers = list(_layers(copied.clip.visual))
        moments = _second_moments(copied.clip.visual, [layer for layer, _ in layers], batches)
        for (layer, bias), moment in zip(layers, moments, strict=True):
            _round(layer, bias, moment)
    return copied


def _layers(tower: nn.Module) -> Iterator[tuple[Layer, Tensor]]:
    """Each layer with its bias, batch norms having been folded into the kernels before them; they keep the bias.

    The first maps stay as they are: under bfloat16 a CPU computes them in float32.
    """
    parts = [part for part in tower.modules() if isinstance(part, EfficientNet)]
    exact = {module for part in parts for first in stem_layers(part) for module in first.modules()}
    biases: dict[nn.Module, Tensor] = {}
    for parent in tower.modules():
        for _, convolution, _, norm in normalized(parent):
            if convolution not in exact:
                _fold(convolution, norm)
                biases[convolution] = norm.bias
    for module in tower.modules():
        if isinstance(module, Layer) and module not in exact:
            bias = biases.get(module, module.bias)
            yield module, torch.zeros(module.weight.shape[0]) if bias is None else bias


def _fold(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """Move the norm's scale into the kernels; it keeps a scale of one and its shift."""
    fused = fuse_conv_bn_eval(convolution, norm)
    mean, variance = norm.running_mean, norm.running_var
    assert fused.bias is not None  # for mypy: a norm has a shift
    assert mean is not None  # and has seen photos
    assert variance is not None
    convolution.weight.copy_(fused.weight)
    norm.bias.copy_(fused.bias)
    norm.weight.fill_(1)
    mean.zero_()
    variance.fill_(1 - norm.eps)


def _second_moments(tower: nn.Module, layers: list[Layer], batches: Iterable[Tensor]) -> list[Tensor]:
    """Of what each layer's weights are multiplied with, after a one for the bias: (groups, 1 + k, 1 + k) each."""
    moments: dict[nn.Module, Tensor] = {}

    def note(layer: Layer, given: tuple[Tensor, ...]) -> None:
        taps = functional.pad(_taps(layer, given[0]), (1, 0), value=1.0)
        moments[layer] = moments.get(layer, torch.zeros(())) + taps.mT @ taps / taps.shape[1]

    hooks = [layer.register_forward_pre_hook(note) for layer in layers]
    for batch in batches:
        tower(batch)
    for hook in hooks:
        hook.remove()
    return [moments[layer] for layer in layers]


def _taps(layer: Layer, given: Tensor) -> Tensor:
    """(groups, n, k): the inputs of a layer's products at some positions."""
    if isinstance(layer, nn.Linear):
        return given.reshape(1, -1, layer.in_features)
    border = layer.kernel_size[0] // 2, layer.kernel_size[1] // 2
    windows = functional.unfold(given, layer.kernel_size, layer.dilation, border, layer.stride)
    windows = windows[..., :: max(1, len(given) * windows.shape[-1] // _POSITIONS)]
    grouped = windows.reshape(len(given), layer.groups, -1, windows.shape[-1])
    return grouped.permute(1, 0, 3, 2).flatten(1, 2)


def _round(layer: Layer, bias: Tensor, moment: Tensor) -> None:
    """Round a layer's weights and bias in place; each takes over what those rounded before it left."""
    groups = len(moment)
    weights = torch.cat([bias.view(groups, -1, 1), layer.weight.view(groups, -1, moment.shape[1] - 1)], dim=2)
    diagonal = moment.diagonal(dim1=1, dim2=2)
    damped = moment + torch.diag_embed((_DAMPING * diagonal.mean(1, keepdim=True)).expand_as(diagonal))
    spread = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(damped)), upper=True)
    for place in range(weights.shape[2]):
        exact = weights[:, :, place].bfloat16().float()
        left = (weights[:, :, place] - exact) / spread[:, place, place, None]
        weights[:, :, place] = exact
        weights[:, :, place + 1 :] -= left[:, :, None] * spread[:, None, place, place + 1 :]
    bias.copy_(weights[:, :, 0].flatten())
    layer.weight.copy_(weights[:, :, 1:].reshape(layer.weight.shape))
