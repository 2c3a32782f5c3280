"""Fitting a `Probe` to labeled photos, in torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from fashion_retrieval.models.probe import TINY, Floats, Probe

_STRENGTHS = (0.1, 0.03, 0.01, 0.003, 0.001)
"""Of the pull towards the prompts; of stronger ones few examples would choose too many."""
_TEMPERATURES = (0.25, 0.35, 0.5, 0.7, 1.0)
"""Factors on the logits, chosen with the strength; none above 1: few examples, well told apart, prove little."""
_FOLDS, _ROUNDS = 5, 100


def fit(
    images: Floats, by_prompts: Floats, labels: NDArray[np.int64], values: Sequence[str]
) -> tuple[Probe, NDArray[np.float64]]:
    """Multinomial logistic regression, pulled towards the prompts, and what it says of photos that it has not seen.

    The mean cross-entropy plus strength / 2 * (|weight|² + |bias|² + (scale - 1)²) is least, for embeddings that are
    centered and of a mean square norm of 1: the stronger, the nearer to the words. Strength and temperature are those
    of the least cross-entropy in five-fold cross-validation; the same choice is made anew in each of the outer folds
    that the second result comes from, so that no photo has a part in what judges it. Nothing in it is random.

    Args:
        images: (n, d), L2-normalized; at least two of each value.
        by_prompts: (n, values) probabilities of the values, each row summing to 1.
        labels: (n,) int64 positions of values.
        values: Names of the values, at least two.

    Returns:
        The probe, and (n, values) float64 probabilities.
    """
    embeddings, given, truth = (torch.from_numpy(np.asarray(array)) for array in (images, by_prompts, labels))
    embeddings, prior = embeddings.double(), given.double().clamp_min(TINY).log()
    unseen = torch.empty_like(prior)
    for inside, outside in _folds(truth):
        weight, bias, scale = _tuned(embeddings[inside], prior[inside], truth[inside])
        unseen[outside] = scale * prior[outside] + embeddings[outside] @ weight.T + bias
    found = (part.float().numpy() for part in _tuned(embeddings, prior, truth))
    return Probe(tuple(values), *found), unseen.softmax(-1).numpy()


def _tuned(embeddings: Tensor, prior: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weight, bias and scale of the best strength and temperature, for embeddings as they are."""
    center = embeddings.mean(0)
    spread = (embeddings - center).square().sum(1).mean().sqrt().clamp_min(TINY)
    basis, lengths, axes = torch.linalg.svd((embeddings - center) / spread, full_matrices=False)
    features = basis * lengths  # the solution lies in the span of the examples: with few of them a small problem
    folds = _folds(labels)
    tried = []
    for strength in _STRENGTHS:
        logits = torch.empty_like(prior)
        for inside, outside in folds:
            weight, bias, scale = _solve(features[inside], prior[inside], labels[inside], strength)
            logits[outside] = scale * prior[outside] + features[outside] @ weight.T + bias
        tried += [(float(functional.cross_entropy(logits * t, labels)), strength, t) for t in _TEMPERATURES]
    _, strength, temperature = min(tried)
    weight, bias, scale = (temperature * part for part in _solve(features, prior, labels, strength))
    weight = weight @ axes / spread
    return weight, bias - weight @ center, scale


def _solve(features: Tensor, prior: Tensor, labels: Tensor, strength: float) -> tuple[Tensor, Tensor, Tensor]:
    """The least of `fit`'s objective, which is convex: weight (values, r), bias (values,) and scale ()."""
    weight = features.new_zeros(prior.shape[1], features.shape[1], requires_grad=True)
    bias = features.new_zeros(prior.shape[1], requires_grad=True)
    scale = features.new_ones((), requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias, scale], max_iter=_ROUNDS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        pull = weight.square().sum() + bias.square().sum() + (scale - 1).square()
        value = functional.cross_entropy(scale * prior + features @ weight.T + bias, labels) + strength / 2 * pull
        value.backward()  # type: ignore[no-untyped-call]  # torch's own
        return value

    with torch.enable_grad():
        optimizer.step(loss)  # type: ignore[no-untyped-call]  # torch's own
    if scale < 0:  # words that mislead get no say, rather than the opposite one
        weight, bias, _ = _solve(features, torch.zeros_like(prior), labels, strength)
        return weight, bias, torch.zeros_like(scale)
    return weight.detach(), bias.detach(), scale.detach()


def _folds(labels: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Positions inside and outside, in up to five folds over which each value's examples are spread evenly."""
    fold = torch.empty_like(labels)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    order = order[labels[order].argsort(stable=True)]
    fold[order] = torch.arange(len(labels)) % min(_FOLDS, len(labels))
    return [((fold != k).nonzero()[:, 0], (fold == k).nonzero()[:, 0]) for k in range(int(fold.max()) + 1)]
