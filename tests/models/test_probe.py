"""A probe: the prompts' probabilities corrected, the objective's least point, and scores of photos not seen."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional

from fashion_retrieval.models import probe_fit
from fashion_retrieval.models.probe import Floats, Probe
from fashion_retrieval.models.probe_fit import fit

VALUES = ("zip", "buttons", "none")


def examples(per_value: int, *, noise: float = 0.5, seed: int = 0) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Embeddings around one direction a value, what misleading prompts say, and labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(3 * per_value) % 3
    centers = torch.tensor([3.0, 0, 0, 0]) + torch.eye(4)[1:]
    images = centers[labels] + noise * torch.randn(len(labels), 4, generator=generator)
    prompts = torch.softmax(torch.randn(len(labels), 3, generator=generator), 1)
    return functional.normalize(images, dim=1).numpy(), prompts.numpy(), labels.numpy()


def test_a_new_probe_leaves_the_prompts_as_they_are() -> None:
    given = np.array([0.7, 0.2, 0.1], np.float32)
    found = Probe.start(VALUES, 4).correct(given, np.eye(4, dtype=np.float32)[0], VALUES)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, given, rtol=1e-6)


def test_correct_by_hand_leaves_values_that_it_does_not_know_to_their_words() -> None:
    weight, bias, scale, given, image = (
        np.array(numbers, np.float32) for numbers in ([[1, 0], [0, 2]], [0.5, -1], 0.5, [0.25, 0.5, 0.25], [0.6, 0.8])
    )
    probe = Probe(("zip", "none"), weight, bias, scale)
    odds = np.array([0.5 * np.exp(-1 + 1.6), 0.5**0.5, 0.5 * np.exp(0.5 + 0.6)])
    np.testing.assert_allclose(probe.correct(given, image, ("none", "hook", "zip")), odds / odds.sum(), rtol=1e-6)
    assert probe.correct(given, image, ("hook", "snap", "toggle")) is given


def test_chance_by_hand_and_rows_of_an_earlier_probe() -> None:
    weight, bias, image = (np.array(row, np.float32) for row in ([[1, 0], [0, 2]], [0.5, -1], [0.6, 0.8]))
    probe = Probe(("zip", "none"), weight, bias, np.ones((), np.float32))
    np.testing.assert_allclose(probe.chance(image), [1 / (1 + np.exp(-1.1)), 1 / (1 + np.exp(-0.6))], rtol=1e-6)
    both = Probe.start(("hook",), 2).with_rows(probe, {"none", "snap"})
    assert both.values == ("hook", "none")
    np.testing.assert_array_equal(both.weight, [[0, 0], [0, 2]])
    np.testing.assert_array_equal(both.bias, [0, -1])


def test_solve_finds_the_point_where_the_gradient_is_zero() -> None:
    images, prompts, labels = map(torch.from_numpy, examples(8))
    features, prior = images.double() - images.double().mean(0), prompts.double().log()
    parts = [part.requires_grad_() for part in probe_fit._solve(features, prior, labels, 0.03)]
    weight, bias, scale = parts
    pull = weight.square().sum() + bias.square().sum() + (scale - 1).square()
    loss = functional.cross_entropy(scale * prior + features @ weight.T + bias, labels) + 0.015 * pull
    for gradient in torch.autograd.grad(loss, parts):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-4, rtol=0)


def test_words_that_say_the_opposite_get_no_say() -> None:
    images, _, labels = map(torch.from_numpy, examples(8))
    opposite = (1 - 0.9 * functional.one_hot(labels, 3).double()).log()
    assert probe_fit._solve(images.double() * 0, opposite, labels, 0.001)[2] == 0


def test_fit_tells_apart_what_the_prompts_can_not() -> None:
    images, prompts, labels = examples(20)
    probe, unseen = fit(images, prompts, labels, VALUES)
    new, of_new, truth = examples(40, seed=1)
    found = np.stack([probe.correct(*row, VALUES) for row in zip(of_new, new, strict=True)]).argmax(1)
    right, by_prompts, expected = (
        float((guess == label).mean())
        for guess, label in ((found, truth), (of_new.argmax(1), truth), (unseen.argmax(1), labels))
    )
    assert by_prompts < 0.5 < 0.75 < right
    assert expected == pytest.approx(right, abs=0.1)
    assert unseen.dtype == np.float64
    np.testing.assert_allclose(unseen.sum(1), np.ones(60), rtol=1e-7)


def test_fit_scores_a_photo_by_probes_that_never_saw_it() -> None:
    """Labels at random: only a photo that judges itself could be guessed better than by chance."""
    images, prompts, labels = examples(20)
    drawn = labels[torch.randperm(60, generator=torch.Generator().manual_seed(2)).numpy()]
    assert (fit(images, prompts, drawn, VALUES)[1].argmax(1) == drawn).mean() < 0.45


def test_fit_is_the_same_each_time_and_keeps_the_random_state() -> None:
    given = examples(4)
    state = torch.get_rng_state()
    (one, first), (two, second) = fit(*given, VALUES), fit(*given, VALUES)
    np.testing.assert_array_equal(first, second)
    assert one.digest == two.digest != Probe.start(VALUES, 4).digest
    assert torch.equal(torch.get_rng_state(), state)


def test_folds_spread_each_value() -> None:
    labels = torch.tensor([0] * 11 + [1] * 2)
    folds = probe_fit._folds(labels)
    assert [int((labels[outside] == 0).sum()) for _, outside in folds] == [3, 2, 2, 2, 2]
    assert all((labels[inside] == 1).any() for inside, _ in folds)
    assert sorted(torch.cat([outside for _, outside in folds]).tolist()) == list(range(13))
