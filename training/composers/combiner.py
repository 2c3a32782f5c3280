"""CLIP4Cir's Combiner: a weighted sum of both embeddings, and a mixture.

Baldrati, Bertini, Uricchio and Del Bimbo, 2022, Conditioned and Composed Image Retrieval Combining and Partially
Fine-Tuning CLIP-Based Features, CVPR Workshops: the Combiner network, section 3.2.

What differs: the width of its projections and layers is the configuration's (published: 4 and 8 times the embedding's),
so is its dropout (0.5); the encoder is not fine-tuned first.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fashion_retrieval.config import ComposerConfig
from training.composers.base import Baseline, Tokens, two_layers


class Combiner(Baseline):
    """(1 - lambda) image + lambda text + mixture."""

    def __init__(self, config: ComposerConfig) -> None:
        super().__init__()
        width, dropout = config.width, config.dropout
        self.image = nn.Sequential(nn.Linear(config.embedding_dim, width), nn.ReLU(), nn.Dropout(dropout))
        self.text = nn.Sequential(nn.Linear(config.embedding_dim, width), nn.ReLU(), nn.Dropout(dropout))
        self.mixture = two_layers(2 * width, config.hidden, config.embedding_dim, dropout)
        self.share = two_layers(2 * width, config.hidden, 1, dropout)

    def compose(self, tokens: Tokens) -> Tensor:
        """Lambda is read from both, in (0, 1)."""
        both = torch.cat([self.text(tokens.text), self.image(tokens.image)], dim=-1)
        share = self.share(both).sigmoid()
        result: Tensor = (1 - share) * tokens.image + share * tokens.text + self.mixture(both)
        return result
