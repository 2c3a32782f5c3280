"""TIRG: the photo's embedding, gated by the text, and a residual.

Vo, Jiang, Sun, Murphy, Li, Fei-Fei and Hays, 2019, Composing Text and Image for Image Retrieval: An Empirical Odyssey,
CVPR: eq. (1) to (3), on the last layer's features.

What differs: frozen CLIP embeddings instead of a ResNet-18 and an LSTM trained along; the two scalars w_g and w_r start
at 1; the loss is that of all composers here.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fashion_retrieval.config import ComposerConfig
from training.composers.base import Baseline, Tokens


class Tirg(Baseline):
    """w_g f_gate + w_r f_res, eq. (1)."""

    def __init__(self, config: ComposerConfig) -> None:
        super().__init__()
        width = config.embedding_dim
        self.gate = _layers(2 * width, width, config.dropout)
        self.residual = _layers(2 * width, width, config.dropout)
        self.weights = nn.Parameter(torch.ones(2))

    def compose(self, tokens: Tokens) -> Tensor:
        """f_gate = sigmoid(W_g2 ReLU(W_g1 [x, t])) x, eq. (2); f_res = W_r2 ReLU(W_r1 [x, t]), eq. (3)."""
        both = torch.cat([tokens.image, tokens.text], dim=-1)
        kept = self.gate(both).sigmoid() * tokens.image
        result: Tensor = self.weights[0] * kept + self.weights[1] * self.residual(both)
        return result


def _layers(entrance: int, result: int, dropout: float) -> nn.Sequential:
    """Two layers with batch normalization, as published; in eval mode it does not depend on the batch."""
    first = nn.Linear(entrance, entrance, bias=False)
    return nn.Sequential(first, nn.BatchNorm1d(entrance), nn.ReLU(), nn.Dropout(dropout), nn.Linear(entrance, result))
