"""AGCN: a reference photo and a text become one query (PAPER: eq. 7-12).

Two branches of attention blocks say what to change (the text, looking at the image) and what to keep (the image,
looking at the text); two gates weigh them.

Shape legend: b queries, k image tokens, s text tokens, d the encoder's embedding width, w the composer's width.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from fashion_retrieval.config import ComposerConfig

_IMAGE_START = {"none": 0.1, "text": 0.1, "both": 0.3}
"""Initial weight of the image's gate by `ComposerConfig.residual`, below the text's: texts say more of the target."""


class Parts(NamedTuple):
    """What a query is the sum of."""

    kept: Tensor  # (b, d) a F_i, of the image branch; zeros where the variant has none
    changed: Tensor  # (b, d) b F_t, of the text branch; zeros where the variant has none
    gates: Tensor  # (b, 2) the weights a and b, in (0, 1); 1 where the variant has no gates, 0 where it has no branch

    @property
    def query(self) -> Tensor:
        """F = a F_i + b F_t, eq. (12): (b, d), L2-normalized."""
        return functional.normalize(self.kept + self.changed, dim=-1)


class Composer(nn.Module):
    """The attention-based gated composition network, or one of its ablations (PAPER: Table 5).

    A query depends on its own tokens alone: padding is masked, and nothing is shared across a batch. A branch is the
    attended token itself, as in the paper, or a change to its pooled embedding (`ComposerConfig.residual`), zero before
    training.
    """

    def __init__(self, config: ComposerConfig) -> None:
        super().__init__()
        self.config = config
        variant = config.variant
        self.text_branch = Branch(config) if variant in ("only_text", "add", "agcn") else None
        self.image_branch = Branch(config) if variant in ("only_image", "add", "agcn") else None
        self._changes_text = config.residual in ("text", "both")
        self._changes_image = config.residual == "both"
        for branch, changes in ((self.text_branch, self._changes_text), (self.image_branch, self._changes_image)):
            if branch is not None and changes:
                nn.init.zeros_(branch.exit.weight)
                nn.init.zeros_(branch.exit.bias)
        self.text_gate = Gate(config, start=0.5) if variant == "agcn" else None
        self.image_gate = Gate(config, start=_IMAGE_START[config.residual]) if variant == "agcn" else None

    def forward(self, image: Tensor, text: Tensor, lengths: Tensor) -> Tensor:
        """`parts` as one query: (b, k, d) image and (b, s, d) text tokens -> (b, d) float32, L2-normalized."""
        return self.parts(image, text, lengths).query

    def parts(self, image: Tensor, text: Tensor, lengths: Tensor) -> Parts:
        """Both branches, weighed: (b, k, d) image and (b, s, d) text tokens -> float32 `Parts`.

        The pooled embedding is the image's first token; of each text its (b,) int64 `lengths` from 1 to s count, the
        last of them pooled.
        """
        rows = torch.arange(text.shape[0], device=text.device)
        padding = torch.arange(text.shape[1], device=text.device) >= lengths[:, None]
        pooled_image = functional.normalize(image[:, 0], dim=-1)
        pooled_text = functional.normalize(text[rows, lengths - 1], dim=-1)
        kept, changed = pooled_image, pooled_text
        if self.image_branch is not None:
            branch = self.image_branch(image, text, torch.zeros_like(lengths), key_padding=padding)
            kept = kept + branch if self._changes_image else branch
        if self.text_branch is not None:
            branch = self.text_branch(text, image, lengths - 1, query_padding=padding)
            changed = changed + branch if self._changes_text else branch
        gates = torch.ones_like(pooled_text[:, :2])
        if self.config.variant in ("only_image", "only_text"):
            gates = gates * gates.new_tensor([1, 0] if self.config.variant == "only_image" else [0, 1])
        elif self.image_gate is not None and self.text_gate is not None:
            both = torch.cat([pooled_image, pooled_text], dim=-1)
            gates = torch.cat([self.image_gate(both), self.text_gate(both)], dim=-1)
        return Parts(gates[:, :1] * kept, gates[:, 1:] * changed, gates)


class Keys(NamedTuple):
    """Tokens that are attended to."""

    tokens: Tensor  # (b, m, w), or (b, m, d) where they have still to enter: normalized, not scaled
    padding: Tensor | None = None  # (b, m) bool, True is padding
    entrance: nn.Sequential | None = None  # d -> w


class Branch(nn.Module):
    """A stack of blocks in which one modality attends to the other."""

    def __init__(self, config: ComposerConfig) -> None:
        super().__init__()
        self.own = _entrance(config)
        self.other = _entrance(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.exit = nn.Linear(config.width, config.embedding_dim)

    def forward(
        self,
        own: Tensor,
        other: Tensor,
        wanted: Tensor,
        *,
        query_padding: Tensor | None = None,
        key_padding: Tensor | None = None,
    ) -> Tensor:
        """The token at `wanted`, (b,) int64, of own tokens (b, q, d) that see the other modality's (b, m, d) -> (b, d).

        Masks are True for padding. The last block attends from the wanted token alone: it needs no other.
        """
        *blocks, last = self.blocks
        rows = torch.arange(own.shape[0], device=own.device)  # with len(own), torch.export would fix the batch
        if blocks:
            states, context = self.own(own), Keys(self.other(other), key_padding)
            for block in blocks:
                states = block(states, Keys(states, query_padding), context)
            asked, keys = states[rows, wanted], Keys(states, query_padding)
        else:
            asked = self.own(own[rows, wanted])
            keys = Keys(functional.layer_norm(own, own.shape[-1:]), query_padding, self.own)
            context = Keys(functional.layer_norm(other, other.shape[-1:]), key_padding, self.other)
        result: Tensor = self.exit(last(asked, keys, context))
        return result


class Block(nn.Module):
    """Self-attention, cross-attention and feed-forward, each added and normalized: eq. (7) to (11)."""

    def __init__(self, config: ComposerConfig) -> None:
        super().__init__()
        width, heads, dropout = config.width, config.heads, config.dropout
        self.self_attention = nn.MultiheadAttention(width, heads, dropout=dropout, batch_first=True)
        self.cross_attention = nn.MultiheadAttention(width, heads, dropout=dropout, batch_first=True)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, config.hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(config.hidden, width)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor, own: Keys, other: Keys) -> Tensor:
        """(b, q, w) states, or one each, (b, w), that see the branch's own tokens, then the other's -> as states."""
        states = self.norms[0](states + self.dropout(_attend(self.self_attention, states, own)))
        states = self.norms[1](states + self.dropout(_attend(self.cross_attention, states, other)))
        result: Tensor = self.norms[2](states + self.dropout(self.feed_forward(states)))
        return result


class Gate(nn.Module):
    """A weight in (0, 1) from both pooled embeddings; before training it is `start` for every query."""

    def __init__(self, config: ComposerConfig, *, start: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2 * config.embedding_dim, config.width),
            nn.Linear(config.width, config.width),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.width, 1),
        )
        last = self.layers[-1]
        nn.init.zeros_(last.weight)  # type: ignore[arg-type]  # a Linear's
        nn.init.constant_(last.bias, math.log(start / (1 - start)))  # type: ignore[arg-type]

    def forward(self, both: Tensor) -> Tensor:
        """(b, 2 d) -> (b, 1)."""
        weight: Tensor = self.layers(both).sigmoid()
        return weight


def _entrance(config: ComposerConfig) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(config.embedding_dim), nn.Linear(config.embedding_dim, config.width))


def _attend(attention: nn.MultiheadAttention, queries: Tensor, keys: Keys) -> Tensor:
    """(b, q, w) queries, or one each, (b, w), attend to keys -> as queries.

    For one query no token is projected, and none has to enter: q (K x) = (q K) x. Biases add the same to all scores.
    """
    result: Tensor
    tokens, padding, entrance = keys
    if queries.ndim == tokens.ndim:
        result, _ = attention(queries, tokens, tokens, key_padding_mask=padding, need_weights=False)
        return result
    heads, size = attention.num_heads, attention.head_dim
    to_query, to_key, to_value = attention.in_proj_weight.view(3, heads, size, -1)
    query_bias, _, value_bias = attention.in_proj_bias.view(3, heads, size)
    query = torch.einsum("bw,hew->bhe", queries, to_query) + query_bias
    query = torch.einsum("bhe,hew->bhw", query * size**-0.5, to_key)
    if entrance is not None:
        scale, shift, weight, bias = entrance.parameters()  # of its norm, of its linear layer
        query = query @ weight * scale
    scores = query @ tokens.mT
    if padding is not None:
        scores = scores.masked_fill(padding[:, None], float("-inf"))
    shares = functional.dropout(scores.softmax(-1), attention.dropout, attention.training)
    total, seen = shares.sum(-1, keepdim=True), shares @ tokens
    if entrance is not None:
        seen = (seen * scale + total * shift) @ weight.T + total * bias
    result = attention.out_proj((torch.einsum("bhw,hew->bhe", seen, to_value) + total * value_bias).flatten(1))
    return result
