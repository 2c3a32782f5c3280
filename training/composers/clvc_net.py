"""CLVC-Net: cells are changed by the words that concern them, the whole by the sentence, and both teach each other.

Wen, Song, Yang, Zhan and Nie, 2021, Comprehensive Linguistic-Visual Composition Network for Image Retrieval, SIGIR: the
fine-grained local-wise and global-wise composition modules, each an affine change, and mutual enhancement.

What differs: one level of the feature map; frozen features; the query is the sum of both modules' unit embeddings, and
the loss of all composers here falls on it, so that mutual enhancement (the divergence of their rankings of the batch's
targets, both ways) is all that is added.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from fashion_retrieval.config import ComposerConfig
from training.composers.base import Attention, Baseline, Tokens


class ClvcNet(Baseline):
    """Two compositions, added."""

    def __init__(self, config: ComposerConfig) -> None:
        super().__init__()
        width = config.embedding_dim
        self.cell_words = Attention(config, queries=width, keys=width, result=config.width)
        self.cell_affine = Affine(width, config.width, config.dropout)
        self.cell_self = Attention(config, queries=width, keys=width, result=width)
        self.sentence = Attention(config, queries=width, keys=width, result=config.width)
        self.whole_affine = Affine(width, config.width, config.dropout)

    def compose(self, tokens: Tokens) -> Tensor:
        """The sum of the local-wise and the global-wise embedding."""
        local, whole = self.both(tokens)
        return local + whole

    def both(self, tokens: Tokens) -> tuple[Tensor, Tensor]:
        """Local-wise and global-wise composition: each (b, d), L2-normalized."""
        words = self.cell_words(tokens.cells, tokens.words, tokens.padding)
        cells = self.cell_affine(tokens.cells, words)
        cells = cells + self.cell_self(cells, cells)
        sentence = self.sentence(tokens.text[:, None], tokens.words, tokens.padding)[:, 0]
        whole = self.whole_affine(tokens.image, sentence)
        return functional.normalize(cells.mean(1), dim=-1), functional.normalize(whole, dim=-1)

    def learn(self, tokens: Tokens, targets: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """With mutual enhancement: each module's ranking is taught to the other, the teacher held fixed."""
        local, whole = self.both(tokens)
        rankings = [(scale * side @ targets.T).log_softmax(-1) for side in (local, whole)]
        mutual = [
            functional.kl_div(learner, teacher.detach(), reduction="batchmean", log_target=True)
            for learner, teacher in (rankings, rankings[::-1])
        ]
        return functional.normalize(local + whole, dim=-1), torch.stack(mutual).sum()


class Affine(nn.Module):
    """(1 + gamma) x + beta, with gamma and beta read from what words say."""

    def __init__(self, width: int, words: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.ReLU(), nn.Dropout(dropout), nn.Linear(words, 2 * width))

    def forward(self, states: Tensor, words: Tensor) -> Tensor:
        """(b, ..., d), (b, ..., w) -> (b, ..., d)."""
        gamma, beta = self.layers(words).chunk(2, dim=-1)
        changed: Tensor = (1 + gamma) * states + beta
        return changed
