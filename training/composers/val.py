"""VAL: cells that know the text, transformed by self-attention and preserved by joint attention.

Chen, Gong and Bazzani, 2020, Image Search with Text Feedback by Visiolinguistic Attention Learning, CVPR: the composite
transformer, section 3.2.

What differs: one level of the feature map instead of three; frozen features; the spatial part of joint attention weighs
each cell by itself (its 3 x 3 convolution needs the map's shape, which patches don't carry); no hierarchical matching
with side information.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fashion_retrieval.config import ComposerConfig
from training.composers.base import Attention, Baseline, Tokens


class Val(Baseline):
    """w_sa V_sa + w_ja V_ja, averaged over the cells."""

    def __init__(self, config: ComposerConfig) -> None:
        super().__init__()
        width, embedding = config.width, config.embedding_dim
        self.fuse = nn.Linear(2 * embedding, width)
        self.transform = Attention(config, queries=width, keys=width, result=embedding)
        self.channels = nn.Linear(width, embedding)
        self.places = nn.Linear(1, 1)
        self.weights = nn.Parameter(torch.ones(2))

    def compose(self, tokens: Tokens) -> Tensor:
        """V_vl = F([V, t]); V_sa attends among its cells; V_ja = sigmoid(channels) sigmoid(places) V."""
        spread = tokens.text[:, None].expand_as(tokens.cells)
        fused = self.fuse(torch.cat([tokens.cells, spread], dim=-1))
        transformed = self.transform(fused, fused)
        channels = self.channels(fused.mean(1, keepdim=True)).sigmoid()
        places = self.places(fused.mean(-1, keepdim=True)).sigmoid()
        preserved = channels * places * tokens.cells
        result: Tensor = (self.weights[0] * transformed + self.weights[1] * preserved).mean(1)
        return result
