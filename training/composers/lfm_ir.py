"""LFM-IR: the text locates regions of the photo and their channels, and what it finds there is modified.

Zha, Yan, Zhang and Wang, 2023, Image Retrieval with Text Manipulation by Local Feature Modification, Journal of Donghua
University (English Edition) 40 (4), 404-409 (the paper's reference 17): a spatial and a channel attention module map
the text onto the photo; the local feature that they find is modified, and joined with the photo's global feature.

The description says what the modules are for and gives no equations that we could see. Read so: spatial attention is a
softmax over the cells of their product with the text; channel attention a sigmoid gate from what is seen there and the
text; the modification a residual from both; the fusion two layers over the global feature, the modified local one and
the text, added to the global one. What differs: frozen features, and the loss of all composers here.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fashion_retrieval.config import ComposerConfig
from training.composers.base import Baseline, Tokens, two_layers


class LfmIr(Baseline):
    """Where, which channels, what instead; then the whole."""

    def __init__(self, config: ComposerConfig) -> None:
        super().__init__()
        width, hidden, dropout = config.embedding_dim, config.width, config.dropout
        self.places = nn.Linear(width, hidden, bias=False)
        self.told = nn.Linear(width, hidden)
        self.channels = two_layers(2 * width, hidden, width, dropout)
        self.modify = two_layers(2 * width, hidden, width, dropout)
        self.fuse = two_layers(3 * width, hidden, width, dropout)

    def compose(self, tokens: Tokens) -> Tensor:
        """The photo, changed by its modified local feature."""
        local = self.locate(tokens)
        modified = local + self.modify(torch.cat([local, tokens.text], dim=-1))
        change: Tensor = self.fuse(torch.cat([tokens.image, modified, tokens.text], dim=-1))
        return tokens.image + change

    def locate(self, tokens: Tokens) -> Tensor:
        """The cells and channels that the text means -> (b, d)."""
        told = self.told(tokens.text)[..., None]
        places = (self.places(tokens.cells) @ told * len(told[0]) ** -0.5).softmax(1)
        seen: Tensor = (places * tokens.cells).sum(1)
        channels: Tensor = self.channels(torch.cat([seen, tokens.text], dim=-1)).sigmoid()
        return seen * channels
