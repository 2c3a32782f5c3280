"""Augmentation: chance from its generator alone, the same for a share of a batch, white stays white."""

from __future__ import annotations

import pytest
import torch

from training.data.augment import apply_changes, draw_changes, draw_hidden, erase
from training.engine.loop import generator


def test_augmentation_depends_on_its_generator_alone_and_keeps_white() -> None:
    crops = torch.randint(0, 200, (3, 3, 40, 36), dtype=torch.uint8, generator=generator(0, 1))
    drawn = [draw_changes(3, (32, 28), generator(0, step)) for step in (5, 5, 6)]
    first, again, other = (apply_changes(crops, (32, 28), changes) for changes in drawn)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert (first.shape, first.dtype) == ((3, 3, 32, 28), torch.float32)
    assert 0 <= first.min().item() < first.max().item() <= 1
    assert apply_changes(torch.full_like(crops, 255), (32, 28), drawn[0]).min().item() == pytest.approx(1, abs=1e-5)


def test_random_erasing_hides_a_rectangle_of_a_share_of_the_pictures() -> None:
    pictures = torch.zeros(400, 3, 40, 30)
    hidden = erase(pictures, draw_hidden(400, 0.25, torch.Generator().manual_seed(0)))
    touched = hidden.flatten(1).any(1)
    assert touched.float().mean().item() == pytest.approx(0.25, abs=0.05)
    shares = hidden[touched].mean((1, 2, 3))
    assert 0.03 < shares.min() < shares.max() < 0.28
    rows, columns = (hidden[touched][:, 0].any(axis) for axis in (2, 1))
    torch.testing.assert_close(hidden[touched][:, 0], (rows[:, :, None] & columns[:, None, :]).float())


def test_a_share_of_a_batch_is_changed_as_in_the_whole() -> None:
    crops = torch.randint(0, 256, (6, 3, 40, 36), dtype=torch.uint8, generator=generator(0, 1))
    changes = draw_changes(6, (32, 28), generator(0, 2), erased=0.5)
    whole = apply_changes(crops, (32, 28), changes)
    for rows in (slice(0, 3), slice(3, 6)):
        part = apply_changes(crops[rows], (32, 28), changes.of(rows, torch.device("cpu")))
        torch.testing.assert_close(part, whole[rows], rtol=0, atol=1e-6)
