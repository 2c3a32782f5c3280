"""One factor on the logits per group, so that a probability of 0.8 is right four times in five (Guo et al., 2017)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from fashion_retrieval import FashionModel
from training.eval_recognition import embed_split

FACTORS = tuple(round(0.3 + 0.05 * step, 2) for step in range(35))
# The deepfashion taxonomy calls two of the groups by the paper's names.
ALIASES = {"sleeve": "sleeve_length", "length": "dress_length"}


def fit_calibration(model: FashionModel, root: Path, split: str) -> dict[str, float]:
    """The factor of least negative log-likelihood for category and each attribute group.

    Args:
        model: Without calibration.
        root: The open data pack.
        split: One the weights were not trained on.
    """
    data = embed_split(model, root, split)
    recogniser = model._recogniser("default", 1)
    taxonomy = recogniser.taxonomy
    values = taxonomy.category.values
    shares = [recogniser.category_probabilities(e, c) for e, c in zip(data.crop, data.colours, strict=True)]
    names = {value.name: row for row, value in enumerate(values)}
    factors = {"category": _best_factor(shares, [names.get(s.category or "", -1) for s in data.samples])}
    for group in taxonomy.attributes:
        rows = {value.name: row for row, value in enumerate(group.values)}
        found, truths = [], []
        for sample, embedding, share in zip(data.samples, data.view, shares, strict=True):
            if sample.attributes.get(group.name) in rows:
                found.append(recogniser.attribute_probabilities(embedding, group, values[int(share.argmax())]))
                truths.append(rows[sample.attributes[group.name]])
        factors[group.name] = _best_factor(found, truths)
    return factors | {alias: factors[name] for name, alias in ALIASES.items()}


def _best_factor(shares: list[Tensor], truths: list[int]) -> float:
    """Shares are a softmax, so their logarithms are the logits up to a constant."""
    logits = torch.stack(shares).clamp(min=1e-30).log()
    labels = torch.tensor(truths)
    known = labels >= 0
    losses = [float(functional.cross_entropy(f * logits[known], labels[known])) for f in FACTORS]
    return FACTORS[losses.index(min(losses))]
