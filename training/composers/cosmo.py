"""CoSMo: the text changes the content of a photo, then its style.

Lee, Kim and Han, 2021, CoSMo: Content-Style Modulation for Image Retrieval with Text Feedback, CVPR: the content
modulator (two disentangled multi-modal non-local blocks on the normalized map) and the style modulator (scale and shift
from the photo's own, gated by the text, and from the text).

What differs: frozen features, so that the layers of the backbone behind the modulators are one residual layer a cell;
the non-local block is written from Yin et al., 2020 (Disentangled Non-Local Neural Networks), text added to each cell.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from fashion_retrieval.config import ComposerConfig
from training.composers.base import Baseline, Tokens, two_layers

_EPS = 1e-5


class Cosmo(Baseline):
    """Content, then style, then the mean of the cells."""

    def __init__(self, config: ComposerConfig) -> None:
        super().__init__()
        width = config.embedding_dim
        self.content = nn.ModuleList(NonLocal(config) for _ in range(2))
        self.weights = nn.Parameter(torch.ones(2))
        self.style = nn.Linear(width, 2 * width)
        self.style_gate = nn.Linear(width, 2 * width)
        self.behind = two_layers(width, config.hidden, width, config.dropout)
        with torch.no_grad():
            self.style.bias.copy_(torch.cat([torch.ones(width), torch.zeros(width)]))

    def compose(self, tokens: Tokens) -> Tensor:
        """(x - mean) / std is content; scale and shift are style."""
        mean = tokens.cells.mean(1, keepdim=True)
        spread = (tokens.cells.var(1, keepdim=True, correction=0) + _EPS).sqrt()
        states = (tokens.cells - mean) / spread
        for weight, block in zip(self.weights, self.content, strict=True):
            states = states + weight * block(states, tokens.text)
        scale, shift = self.style(tokens.text)[:, None].chunk(2, dim=-1)
        keep_scale, keep_shift = self.style_gate(tokens.text)[:, None].sigmoid().chunk(2, dim=-1)
        states = (keep_scale * spread + scale) * states + keep_shift * mean + shift
        changed: Tensor = states + self.behind(states)
        return changed.mean(1)


class NonLocal(nn.Module):
    """Attention among cells as a whitened pairwise and a unary term, both told the text."""

    def __init__(self, config: ComposerConfig) -> None:
        super().__init__()
        width = config.embedding_dim
        self.heads = config.heads
        self.told = nn.Linear(2 * width, config.width)
        self.query = nn.Linear(config.width, config.width, bias=False)
        self.key = nn.Linear(config.width, config.width, bias=False)
        self.unary = nn.Linear(config.width, config.heads, bias=False)
        self.value = nn.Linear(config.width, config.width)
        self.exit = nn.Linear(config.width, width)

    def forward(self, cells: Tensor, text: Tensor) -> Tensor:
        """(b, k, d), (b, d) -> (b, k, d)."""
        told = self.told(torch.cat([cells, text[:, None].expand_as(cells)], dim=-1)).relu()
        query, key, value = (self._split(layer(told)) for layer in (self.query, self.key, self.value))
        query, key = (part - part.mean(2, keepdim=True) for part in (query, key))
        pairwise = functional.softmax(query @ key.mT * query.shape[-1] ** -0.5, dim=-1)
        unary = functional.softmax(self.unary(told).mT[:, :, None], dim=-1)
        seen = (pairwise + unary) @ value
        result: Tensor = self.exit(seen.transpose(1, 2).flatten(2))
        return result

    def _split(self, states: Tensor) -> Tensor:
        """(b, k, w) -> (b, heads, k, w / heads)."""
        return states.reshape(*states.shape[:2], self.heads, -1).transpose(1, 2)
