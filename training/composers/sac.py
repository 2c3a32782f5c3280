"""SAC: where to look in the photo, then how to change what is seen.

Jandial, Badjatiya, Chawla, Chopra, Sarkar and Krishnamurthy, 2022, SAC: Semantic Attention Composition for
Text-Conditioned Image Retrieval, WACV: Semantic Feature Attention and Semantic Feature Modification.

What differs: one level of the feature map instead of three, so that nothing is joined across levels; frozen features;
both modules are written from the paper's description of what they compute, on tokens of one width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fashion_retrieval.config import ComposerConfig
from training.composers.base import Attention, Baseline, Tokens, two_layers


class Sac(Baseline):
    """Attention, then modification."""

    def __init__(self, config: ComposerConfig) -> None:
        super().__init__()
        width = config.embedding_dim
        self.words = Attention(config, queries=width, keys=width, result=config.width)
        self.cells = nn.Linear(width, config.width)
        self.look = nn.Linear(config.width, 1, bias=False)
        self.share_image = two_layers(2 * width, config.width, width, config.dropout)
        self.share_text = two_layers(2 * width, config.width, width, config.dropout)
        self.keep = two_layers(2 * width, config.width, width, config.dropout)
        self.offset = two_layers(2 * width, config.width, width, config.dropout)
        self.weights = nn.Parameter(torch.ones(2))

    def compose(self, tokens: Tokens) -> Tensor:
        """Coalesced features, with the photo kept by a gate and a residual offset."""
        seen = torch.cat([self.attend(tokens), tokens.text], dim=-1)
        image, text = seen.chunk(2, dim=-1)
        coalesced = self.share_image(seen).sigmoid() * image + self.share_text(seen).sigmoid() * text
        both = torch.cat([coalesced, tokens.image], dim=-1)
        kept = self.keep(both).sigmoid() * tokens.image
        result: Tensor = coalesced + self.weights[0] * kept + self.weights[1] * self.offset(both)
        return result

    def attend(self, tokens: Tokens) -> Tensor:
        """Where to look: the words that matter to a cell say how much the cell matters -> (b, d)."""
        words = self.words(tokens.cells, tokens.words, tokens.padding)
        places: Tensor = self.look(torch.tanh(self.cells(tokens.cells) * words)).softmax(1)
        return (places * tokens.cells).sum(1)
