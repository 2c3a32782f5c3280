"""What the composers share: one view of the frozen tokens, the interface that trains them, and their small parts.

Shape legend: b queries, k cells, s text tokens, d the encoder's embedding width, w a composer's own width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from fashion_retrieval.config import ComposerConfig


@dataclass(frozen=True, slots=True)
class Tokens:
    """A batch of queries, each modality in units of its pooled embedding's length."""

    image: Tensor  # (b, d), L2-normalized: the pooled embedding of the reference photo
    cells: Tensor  # (b, k, d): patches, or cells of the feature map
    text: Tensor  # (b, d), L2-normalized: the pooled embedding of the text
    words: Tensor  # (b, s, d), padding included
    padding: Tensor  # (b, s) bool, True where `words` has none


def view(image: Tensor, text: Tensor, lengths: Tensor) -> Tokens:
    """What `Composer` takes: (b, 1 + k, d), the pooled embedding first; (b, s, d); (b,) int64, each from 1 to s."""
    pooled = text[torch.arange(len(text), device=text.device), lengths - 1]
    pooled_length = pooled.norm(dim=-1, keepdim=True)[:, None]
    return Tokens(
        image=functional.normalize(image[:, 0], dim=-1),
        cells=image[:, 1:] / image[:, :1].norm(dim=-1, keepdim=True),
        text=functional.normalize(pooled, dim=-1),
        words=text / pooled_length,
        padding=torch.arange(text.shape[1], device=text.device) >= lengths[:, None],
    )


class Baseline(nn.Module, ABC):
    """A composer of the literature, called as `Composer` is: tokens and lengths in, (b, d) L2-normalized queries out.

    A query depends on its own tokens alone, in eval mode.
    """

    def forward(self, image: Tensor, text: Tensor, lengths: Tensor) -> Tensor:
        """As `Composer.forward`."""
        return functional.normalize(self.compose(view(image, text, lengths)), dim=-1)

    @abstractmethod
    def compose(self, tokens: Tokens) -> Tensor:
        """(b, d) of any length."""

    def learn(self, tokens: Tokens, targets: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """A step of training on (b, d) L2-normalized targets: the queries, and what the method adds to the loss."""
        return functional.normalize(self.compose(tokens), dim=-1), scale.new_zeros(())


class Anchored(Baseline):
    """A composer whose result is a change to the pooled text, and to the pooled photo where that is wanted.

    The change starts at zero, so that all composers start alike: what is compared is the mechanism, and not how far its
    own first guess lies from the embedding space. Without the photo they start as AGCN's text branch does.
    """

    def __init__(self, inner: Baseline, embedding_dim: int, *, with_photo: bool) -> None:
        super().__init__()
        self.inner = inner
        self.with_photo = with_photo
        self.exit = nn.Linear(embedding_dim, embedding_dim, bias=False)
        nn.init.zeros_(self.exit.weight)

    def compose(self, tokens: Tokens) -> Tensor:
        """The start, changed."""
        return self._anchor(tokens, functional.normalize(self.inner.compose(tokens), dim=-1))

    def learn(self, tokens: Tokens, targets: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """With what the inner composer adds to the loss."""
        query, extra = self.inner.learn(tokens, targets, scale)
        return functional.normalize(self._anchor(tokens, query), dim=-1), extra

    def _anchor(self, tokens: Tokens, query: Tensor) -> Tensor:
        change: Tensor = self.exit(query)
        return (tokens.image if self.with_photo else 0) + tokens.text + change


class Attention(nn.Module):
    """Multi-head attention between tokens of any widths."""

    def __init__(self, config: ComposerConfig, *, queries: int, keys: int, result: int) -> None:
        super().__init__()
        self.heads = config.heads
        self.dropout = config.dropout
        self.query = nn.Linear(queries, config.width)
        self.key = nn.Linear(keys, config.width, bias=False)
        self.value = nn.Linear(keys, config.width)
        self.exit = nn.Linear(config.width, result)

    def forward(self, queries: Tensor, keys: Tensor, padding: Tensor | None = None) -> Tensor:
        """(b, q, queries), (b, m, keys), (b, m) bool, True is padding -> (b, q, result)."""
        parts = [self.query(queries), self.key(keys), self.value(keys)]
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        mask = None if padding is None else ~padding[:, None, None]
        dropout = self.dropout if self.training else 0.0
        seen = functional.scaled_dot_product_attention(query, key, value, mask, dropout)
        result: Tensor = self.exit(seen.transpose(1, 2).flatten(2))
        return result


def two_layers(entrance: int, hidden: int, result: int, dropout: float) -> nn.Sequential:
    """Linear, ReLU, dropout, linear."""
    return nn.Sequential(nn.Linear(entrance, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, result))
