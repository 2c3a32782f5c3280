"""The embedded model's towers in torch alone, under open_clip's and timm's names: the same numbers, the same files.

open_clip brings timm, torchvision and transformers; importing them takes longer than importing torch. `checkpoint.load`
takes these towers for inference where they are what a configuration describes; training takes open_clip's own.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fashion_retrieval.models.clipped import pad_same

EFFICIENTNET = "tf_efficientnet_lite0"
_STAGES = ((1, 3, 1, 16), (2, 3, 2, 24), (2, 5, 2, 40), (3, 3, 2, 80), (3, 5, 1, 112), (4, 5, 2, 192), (1, 3, 1, 320))
"""Blocks, side of the kernel, stride of the first block, width."""
_STEM, _HEAD, _GROWTH, _EPSILON = 32, 1280, 6, 1e-3
_VISION = {
    "image_size": None,
    "timm_model_name": EFFICIENTNET,
    "timm_model_pretrained": False,
    "timm_pool": "avg",
    "timm_proj": "linear",
    "timm_proj_bias": None,
}
_TEXT = ("context_length", "heads", "layers", "vocab_size", "width")


def is_light(model: Mapping[str, Any]) -> bool:
    """Whether the `model_cfg` of an `open_clip_config.json` describes these towers and nothing beside them."""
    vision, text = model.get("vision_cfg", {}), model.get("text_cfg", {})
    return (
        model.keys() == {"custom_text", "embed_dim", "text_cfg", "vision_cfg"}
        and model["custom_text"] is True
        and vision.keys() == _VISION.keys()
        and all(vision[name] == value for name, value in _VISION.items() if value is not None)
        and sorted(text) == sorted(_TEXT)
        and all(isinstance(text[name], int) and text[name] > 0 for name in _TEXT)
        and text["width"] % text["heads"] == 0
    )


class LightCLIP(nn.Module):
    """open_clip's `CustomTextCLIP` of an EfficientNet-Lite0 and a causal text transformer; `Encoder` runs its parts."""

    def __init__(self, model: Mapping[str, Any]) -> None:
        super().__init__()
        vision, width = model["vision_cfg"], int(model["embed_dim"])
        self.visual = ImageTower(vision["image_size"], width, bias=vision["timm_proj_bias"])
        self.text = TextTower(**model["text_cfg"], output=width)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def encode_image(self, pixels: Tensor) -> Tensor:
        """(b, 3, h, w) float -> (b, d)."""
        pooled: Tensor = self.visual(pixels)
        return pooled


class ImageTower(nn.Module):
    """timm's EfficientNet-Lite0 with a linear projection, as open_clip has it."""

    def __init__(self, image_size: int | Sequence[int], output: int, *, bias: bool) -> None:
        super().__init__()
        height, width = [image_size] * 2 if isinstance(image_size, int) else image_size
        self.image_size = int(height), int(width)
        self.trunk = EfficientNetLite()
        self.head = nn.Sequential(OrderedDict(proj=nn.Linear(_HEAD, output, bias=bias)))

    def forward(self, pixels: Tensor) -> Tensor:
        """(b, 3, h, w) -> (b, d)."""
        pooled: Tensor = self.head(self.trunk.forward_head(self.trunk.forward_features(pixels)))
        return pooled


class EfficientNetLite(nn.Module):
    """EfficientNet-Lite0: no squeeze-and-excitation, ReLU6 throughout, TensorFlow's padding."""

    def __init__(self, *, head: bool = True) -> None:
        super().__init__()
        self.conv_stem = _convolution(3, _STEM, 3, stride=2)
        self.bn1 = _NormAct(_STEM)
        width, stages = _STEM, list[nn.Module]()
        for blocks, side, stride, out in _STAGES:
            stage: list[nn.Module] = []
            for place in range(blocks):
                step = 1 if place else stride
                kind = InvertedResidual if stages else DepthwiseSeparable
                stage.append(kind(width, out, side, step))
                width = out
            stages.append(nn.Sequential(*stage))
        self.blocks = nn.Sequential(*stages)
        if head:
            self.conv_head = _convolution(width, _HEAD, 1)
            self.bn2 = _NormAct(_HEAD)

    def forward_features(self, pixels: Tensor) -> Tensor:
        """(b, 3, h, w) -> (b, 1280, h/32, w/32)."""
        maps: Tensor = self.bn2(self.conv_head(self.blocks(self.bn1(self.conv_stem(pixels)))))
        return maps

    def forward_head(self, maps: Tensor) -> Tensor:
        """(b, 1280, h, w) -> (b, 1280), their mean."""
        return maps.mean((2, 3))


class PyramidEfficientNetLite(EfficientNetLite):
    """The maps of four stages, from 1/4 to 1/32 of the photo's sides, as timm's `features_only` gives them."""

    widths = (24, 40, 112, 320)

    def __init__(self) -> None:
        super().__init__(head=False)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """(b, 3, h, w) -> (b, `widths`, ...) each."""
        maps, found = self.bn1(self.conv_stem(pixels)), []
        for stage, (_, _, _, width) in zip(self.blocks, _STAGES, strict=True):
            maps = stage(maps)
            if width in self.widths:
                found.append(maps)
        return found


class DepthwiseSeparable(nn.Module):
    """A convolution of each map, and one across them; EfficientNet-Lite0's only one changes the width: no shortcut."""

    def __init__(self, width: int, out: int, side: int, stride: int) -> None:
        super().__init__()
        self.conv_dw = _convolution(width, width, side, stride=stride, groups=width)
        self.bn1 = _NormAct(width)
        self.conv_pw = _convolution(width, out, 1)
        self.bn2 = _NormAct(out, act=False)

    def forward(self, maps: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c', h', w')."""
        found: Tensor = self.bn2(self.conv_pw(self.bn1(self.conv_dw(maps))))
        return found


class InvertedResidual(nn.Module):
    """More maps, a convolution of each, and fewer again; a block that keeps the size has a shortcut."""

    def __init__(self, width: int, out: int, side: int, stride: int) -> None:
        super().__init__()
        self.shortcut = stride == 1 and width == out
        self.conv_pw = _convolution(width, _GROWTH * width, 1)
        self.bn1 = _NormAct(_GROWTH * width)
        self.conv_dw = _convolution(_GROWTH * width, _GROWTH * width, side, stride=stride, groups=_GROWTH * width)
        self.bn2 = _NormAct(_GROWTH * width)
        self.conv_pwl = _convolution(_GROWTH * width, out, 1)
        self.bn3 = _NormAct(out, act=False)

    def forward(self, maps: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c', h', w')."""
        found: Tensor = self.bn3(self.conv_pwl(self.bn2(self.conv_dw(self.bn1(self.conv_pw(maps))))))
        return found + maps if self.shortcut else found


class _NormAct(nn.BatchNorm2d):
    """A batch norm and the ReLU6 behind it."""

    def __init__(self, width: int, *, act: bool = True) -> None:
        super().__init__(width, eps=_EPSILON)
        self.act = nn.ReLU6(inplace=True) if act else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        """(b, c, h, w) -> the same."""
        found: Tensor = self.act(super().forward(maps))
        return found


class Conv2dSame(nn.Conv2d):
    """TensorFlow's padding: one more to the right and below where the sides don't come out even."""

    def forward(self, maps: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c', h', w')."""
        if isinstance(maps.shape[-1], torch.SymInt):  # traced for sizes of whole strides: they are even here
            low, high = (self.kernel_size[0] - 2) // 2, (self.kernel_size[0] - 1) // 2
            padded = functional.pad(maps, (low, high, low, high))
        else:
            padded = pad_same(maps, self.kernel_size, self.stride, self.dilation)
        return functional.conv2d(padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def _convolution(width: int, out: int, side: int, *, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    if stride == 1:
        return nn.Conv2d(width, out, side, padding=side // 2, groups=groups, bias=False)
    return Conv2dSame(width, out, side, stride, groups=groups, bias=False)


class TextTower(nn.Module):
    """open_clip's causal text transformer, which pools at the end-of-text token; `models.encoder` runs its parts."""

    pool_type, cls_emb = "argmax", None

    def __init__(
        self, *, context_length: int, heads: int, layers: int, vocab_size: int, width: int, output: int
    ) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(vocab_size, width)
        self.positional_embedding = nn.Parameter(torch.empty(context_length, width).normal_(std=0.01))
        self.transformer = _Transformer(width, layers, heads)
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.empty(width, output).normal_(std=width**-0.5))
        future = torch.full((context_length, context_length), -torch.inf).triu_(1)
        self.register_buffer("attn_mask", future, persistent=False)


class _Transformer(nn.Module):
    def __init__(self, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(_Block(width, heads) for _ in range(layers))

    def get_cast_dtype(self) -> torch.dtype:
        """The type that it computes in."""
        return next(self.resblocks.parameters()).dtype

    def forward(self, states: Tensor, attn_mask: Tensor) -> Tensor:
        """(b, s, width), and (s, s) added to attention's logits -> (b, s, width)."""
        for block in self.resblocks:
            states = block(states, attn_mask)
        return states


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            OrderedDict(c_fc=nn.Linear(width, 4 * width), gelu=nn.GELU(), c_proj=nn.Linear(4 * width, width))
        )

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """(b, s, width) -> the same."""
        seen = self.ln_1(states)
        states = states + self.attn(seen, seen, seen, need_weights=False, attn_mask=mask.to(seen.dtype))[0]
        changed: Tensor = states + self.mlp(self.ln_2(states))
        return changed
