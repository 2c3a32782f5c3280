"""CRN: relations of image and text at each level of a hierarchy, composed from fine to coarse.

Yang, Ye, Cai, Su and Du, 2023, Composed Image Retrieval via Cross Relation Network with Hierarchical Aggregation
Transformer, IEEE Transactions on Image Processing 32: the cross relation network, and aggregation across levels.

What differs: frozen features have one level, so the hierarchy is made of it: cells, a few parts and the whole, each
gathered from the level below by attention, where the paper takes the stages of its image transformer; both modules are
written from the paper's description of what they compute.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from fashion_retrieval.config import ComposerConfig
from training.composers.base import Attention, Baseline, Tokens, two_layers

_PARTS = 8


class Crn(Baseline):
    """Three levels, each composed with the text and handed on."""

    def __init__(self, config: ComposerConfig) -> None:
        super().__init__()
        width = config.embedding_dim
        self.parts = nn.Parameter(torch.randn(_PARTS, width) * width**-0.5)
        self.relations = nn.ModuleList(CrossRelation(config) for _ in range(3))
        self.gather_parts = Attention(config, queries=width, keys=width, result=width)
        self.gather_whole = Attention(config, queries=width, keys=width, result=width)
        self.weights = nn.Parameter(torch.ones(3))

    def compose(self, tokens: Tokens) -> Tensor:
        """The levels' means, weighed."""
        cells = self.relations[0](tokens.cells, tokens)
        asked = self.parts.expand(len(cells), -1, -1)
        parts = self.relations[1](asked + self.gather_parts(asked, cells), tokens)
        whole = tokens.image[:, None]
        whole = self.relations[2](whole + self.gather_whole(whole, parts), tokens)
        levels = [level.mean(1) for level in (cells, parts, whole)]
        return (self.weights * torch.stack(levels, dim=-1)).sum(-1)


class CrossRelation(nn.Module):
    """One matrix of relations, read both ways: words to each place, and places to each word and back."""

    def __init__(self, config: ComposerConfig) -> None:
        super().__init__()
        width, inner = config.embedding_dim, config.width
        self.places = nn.Linear(width, inner)
        self.words = nn.Linear(width, inner, bias=False)
        self.gate = two_layers(3 * width, inner, width, config.dropout)
        self.change = two_layers(3 * width, inner, width, config.dropout)

    def forward(self, places: Tensor, tokens: Tokens) -> Tensor:
        """(b, m, d) -> (b, m, d): gated, and changed by a residual."""
        relation = self.places(places) @ self.words(tokens.words).mT * self.words.out_features**-0.5
        hidden = tokens.padding[:, None]
        to_words = relation.masked_fill(hidden, float("-inf")).softmax(-1)
        to_places = relation.softmax(1).masked_fill(hidden, 0.0)
        said = to_words @ tokens.words
        shown = to_places @ (to_places.mT @ places)
        both = torch.cat([places, said, functional.normalize(shown, dim=-1)], dim=-1)
        made: Tensor = self.gate(both).sigmoid() * places + self.change(both)
        return made
