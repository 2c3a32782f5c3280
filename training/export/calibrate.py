"""One factor on the logits per group, so that a probability of 0.8 is right four times in five (Guo et al., 2017)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from fashion_retrieval import FashionModel
from training.evaluation.recognition import embed_split

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
    recognizer = model._recognizer("default", 1)
    taxonomy = recognizer.taxonomy
    values = taxonomy.category.values
    shares = [recognizer.category_probabilities(e, c) for e, c in zip(data.crop, data.colors, strict=True)]
    names = {value.name: row for row, value in enumerate(values)}
    labels = [names.get(s.category or "", -1) for s in data.samples]
    factors = {"category": _best_factor([[(1.0, share)] for share in shares], labels)}
    nouns = [recognizer.nouns(share) for share in shares]
    for group in taxonomy.attributes:
        rows = {value.name: row for row, value in enumerate(group.values)}
        found, truths = [], []
        for sample, embedding, named in zip(data.samples, data.view, nouns, strict=True):
            if sample.attributes.get(group.name) in rows:
                parts = [(w, recognizer.attribute_probabilities(embedding, group, [(noun, 1.0)])) for noun, w in named]
                found.append(parts)
                truths.append(rows[sample.attributes[group.name]])
        factors[group.name] = _best_factor(found, truths)
    return factors | {alias: factors[name] for name, alias in ALIASES.items()}


def _best_factor(mixtures: list[list[tuple[float, Tensor]]], truths: list[int]) -> float:
    """Each garment's shares are a mixture of softmaxes with the same scale, whose logarithms are logits.

    Args:
        mixtures: Weight and (values,) shares of each part, by garment; as many parts for each.
        truths: Index of the right value, -1 for unknown.
    """
    labels = torch.tensor(truths)
    known = (labels >= 0).nonzero()[:, 0]
    weights = torch.tensor([[weight for weight, _ in parts] for parts in mixtures])[known]
    logits = torch.stack([torch.stack([share for _, share in parts]) for parts in mixtures])[known]
    logits = logits.cpu().clamp(min=1e-30).log()
    right = labels[known][:, None, None].expand(-1, logits.shape[1], 1)
    losses = [
        -float(((f * logits).softmax(-1).gather(-1, right)[..., 0] * weights).sum(1).clamp(min=1e-12).log().mean())
        for f in FACTORS
    ]
    return FACTORS[losses.index(min(losses))]
