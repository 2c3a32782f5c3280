"""A linear probe: what a user's labeled photos add to the prompts of one attribute group."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
TINY = 1e-12
"""The least probability of which a logarithm is taken."""


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """Corrects the probabilities that prompts give to some values of a group.

    The logit of such a value is `scale` * log(its probability by the prompts) + weight @ embedding + bias; that of any
    other value is the first term alone, so that a value without examples keeps its words. It starts as scale 1, all
    else 0: the prompts themselves.
    """

    values: tuple[str, ...]
    weight: Floats  # (values, d)
    bias: Floats  # (values,)
    scale: Floats  # ()

    @classmethod
    def start(cls, values: Sequence[str], embedding_dim: int) -> Probe:
        """A probe that changes nothing."""
        count = len(values)
        zeros = np.zeros((count, embedding_dim), np.float32), np.zeros(count, np.float32)
        return cls(tuple(values), *zeros, np.ones((), np.float32))

    @property
    def state(self) -> Mapping[str, Floats]:
        """Its arrays by name."""
        return {"bias": self.bias, "scale": self.scale, "weight": self.weight}

    @property
    def digest(self) -> str:
        """SHA-256 of values and weights."""
        digest = hashlib.sha256(repr(self.values).encode())
        for name, array in self.state.items():
            digest.update(name.encode() + array.tobytes())
        return digest.hexdigest()

    def with_rows(self, earlier: Probe, names: Collection[str]) -> Probe:
        """With the weights that an earlier probe, of the same encoder, has for values of these names."""
        rows = [place for place, value in enumerate(earlier.values) if value in names]
        weight, bias = np.concatenate([self.weight, earlier.weight[rows]]), np.append(self.bias, earlier.bias[rows])
        return replace(
            self, values=(*self.values, *(earlier.values[place] for place in rows)), weight=weight, bias=bias
        )

    def chance(self, embedding: Floats) -> Floats:
        """An embedding (d,), L2-normalized -> (values,) float32 in [0, 1], by weight and bias alone."""
        logits = np.einsum("nd,d->n", self.weight, embedding) + self.bias
        found: Floats = 0.5 * (1 + np.tanh(0.5 * logits))
        return found

    def correct(self, by_prompts: Floats, embedding: Floats, names: Sequence[str]) -> Floats:
        """(n,) float32 probabilities of named values, and an embedding (d,), L2-normalized -> (n,) float32, corrected.

        Where the probe knows none of the names, they stay as they are.
        """
        known = [(place, self.values.index(name)) for place, name in enumerate(names) if name in self.values]
        if not known:
            return by_prompts
        places, rows = map(list, zip(*known, strict=True))
        logits = self.scale * np.log(np.maximum(by_prompts, np.float32(TINY)))
        logits[places] += np.einsum("nd,d->n", self.weight[rows], embedding) + self.bias[rows]
        return softmax(logits)


def softmax(logits: Floats) -> Floats:
    """(..., n) -> (..., n), each row summing to 1."""
    odds = np.exp(logits - logits.max(axis=-1, keepdims=True))
    found: Floats = odds / odds.sum(axis=-1, keepdims=True)
    return found
