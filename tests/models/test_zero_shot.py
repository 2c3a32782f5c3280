"""Prompt embeddings computed once, and probabilities against plain NumPy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from fashion_retrieval import checkpoint
from fashion_retrieval.models.encoder import Encoder
from fashion_retrieval.models.torch_towers import TorchTowers
from fashion_retrieval.models.zero_shot import Floats, PromptCache, ZeroShotClassifier, normalized
from tests.support.tiny import tiny_folder

PROMPTS = ["a photo of red dress", "dress", "a photo of plaid shirt", "a much longer photo of a woolly coat"]


@pytest.fixture(scope="module")
def towers(tmp_path_factory: pytest.TempPathFactory) -> TorchTowers:
    encoder = checkpoint.load(tiny_folder(tmp_path_factory.mktemp("tiny"))).encoder
    return TorchTowers(encoder, torch.device("cpu"), torch.float32)


@pytest.fixture
def calls(towers: TorchTowers, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many texts went through the text tower at each call."""
    counts: list[int] = []
    encode = towers.encode_texts

    def counted(texts: Sequence[str]) -> Floats:
        counts.append(len(texts))
        return encode(texts)

    monkeypatch.setattr(towers, "encode_texts", counted)
    return counts


def reference(encoder: Encoder, prompt: str) -> NDArray[np.float64]:
    """Plain open_clip: the whole context, one prompt at a time."""
    with torch.inference_mode():
        row: Tensor = encoder.clip.encode_text(encoder.tokenizer([prompt]), normalize=True)[0]
    return row.numpy().astype(np.float64)


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    odds: NDArray[np.float64] = np.exp(logits - logits.max())
    return odds / np.sum(odds)


def unit(*shape: int, seed: int) -> Floats:
    return normalized(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def test_each_prompt_is_encoded_once(towers: TorchTowers, calls: list[int]) -> None:
    cache = PromptCache(towers)
    cache.add([PROMPTS[0], PROMPTS[1], PROMPTS[0]])
    assert calls == [2]
    cache.add(PROMPTS[:2])
    cache.add(())
    assert calls == [2]
    cache.classes([[PROMPTS[0], PROMPTS[2]], [PROMPTS[2]], [PROMPTS[1]]])
    assert calls == [2, 1]
    assert len(cache) == 3


def test_new_prompts_are_batched(towers: TorchTowers, calls: list[int]) -> None:
    cache = PromptCache(towers, batch_size=3)
    cache.add(f"prompt number {number}" for number in range(7))
    assert calls == [3, 3, 1]
    assert len(cache) == 7


def test_the_cache_keeps_no_more_than_its_limit(towers: TorchTowers, calls: list[int]) -> None:
    cache = PromptCache(towers, limit=3)
    first = cache.rows(PROMPTS[:2])
    cache.rows(PROMPTS[1:])
    assert calls == [2, 2]
    assert len(cache) == 3  # the one that the last call did not ask for is forgotten
    np.testing.assert_array_equal(cache.rows([PROMPTS[1], PROMPTS[1]]), first[[1, 1]])
    assert calls == [2, 2]
    np.testing.assert_allclose(cache.rows([PROMPTS[0]]), first[:1], rtol=0, atol=1e-6)
    assert calls == [2, 2, 1]
    assert len(cache.rows(PROMPTS)) == 4  # a call may ask for more


def test_a_class_is_the_normalized_mean_of_its_templates(towers: TorchTowers) -> None:
    cache = PromptCache(towers, batch_size=2)
    groups = [[PROMPTS[3], PROMPTS[0], PROMPTS[1]], [PROMPTS[2]], [PROMPTS[1], PROMPTS[2]]]
    found = cache.classes(groups)
    assert found.dtype == np.float32
    means = [np.mean([reference(towers.encoder, prompt) for prompt in group], axis=0) for group in groups]
    wanted = np.stack([mean / np.linalg.norm(mean) for mean in means])
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert np.linalg.norm(means[0]) < 0.999  # else the mean would not need the normalization
    assert np.abs(wanted[0] - wanted[1]).max() > 0.05  # nor would the order show


def probabilities(image: Floats, classes: Floats, owners: Sequence[int], scale: float) -> Floats:
    """Of one classifier, whose classes belong to these values."""
    return ZeroShotClassifier(classes, np.array(owners), scale).probabilities(image)


def test_a_classifier_knows_whose_phrase_a_class_is(towers: TorchTowers) -> None:
    cache = PromptCache(towers)
    classifier = ZeroShotClassifier.build(cache, [PROMPTS[:2], PROMPTS[2:4]], 1, 20.0)
    assert classifier.owners.tolist() == [0, 0, 1, 1]
    np.testing.assert_array_equal(classifier.classes, cache.classes([[prompt] for prompt in PROMPTS[:4]]))
    averaged = ZeroShotClassifier.build(cache, [PROMPTS[:4], PROMPTS[:2]], 2, 20.0)
    assert averaged.owners.tolist() == [0, 0, 1]
    np.testing.assert_array_equal(averaged.classes, cache.classes([PROMPTS[:2], PROMPTS[2:4], PROMPTS[:2]]))


def test_probabilities_are_a_softmax_summed_over_synonyms() -> None:
    image, classes, owner = unit(16, seed=0), unit(6, 16, seed=1), [0, 0, 1, 2, 2, 2]
    found = probabilities(image, classes, owner, 13.5)
    shares = softmax(13.5 * classes.astype(float) @ image)
    np.testing.assert_allclose(found, [shares[:2].sum(), shares[2], shares[3:].sum()], atol=1e-6)
    assert found.sum() == pytest.approx(1, abs=1e-6)
    assert found.dtype == np.float32


def test_two_fair_synonyms_beat_one_better_word() -> None:
    image = np.array([1, 0], np.float32)
    classes = np.array([[0.5, 0.75**0.5], [0.5, -(0.75**0.5)], [0.52, (1 - 0.52**2) ** 0.5]], np.float32)
    two = 2 / (2 + np.exp(10 * 0.02))
    assert probabilities(image, classes, [0, 0, 1], 10.0).tolist() == pytest.approx([two, 1 - two], abs=1e-6)
    assert probabilities(image, classes, [0, 1, 2], 10.0).argmax() == 2


@pytest.mark.parametrize("scale", [1e-3, 1.0, 100.0, 1e4])
def test_probabilities_sum_to_one_at_every_scale(scale: float) -> None:
    found = probabilities(unit(16, seed=2), unit(50, 16, seed=3), list(range(50)), scale)
    assert found.shape == (50,)
    assert found.sum() == pytest.approx(1, abs=1e-5)
    assert (found >= 0).all()


def test_a_constant_logit_bias_would_cancel() -> None:
    image, classes = unit(16, seed=4), unit(3, 16, seed=5)
    biased = softmax(20.0 * classes.astype(float) @ image - 12.9)
    np.testing.assert_allclose(probabilities(image, classes, list(range(3)), 20.0), biased, atol=1e-6)
