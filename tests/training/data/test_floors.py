"""Garments laid on other floors: what is seen of them stays, labels follow, the floor is free of garments."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from training.data.floors import floors, lay_down, put_in_front
from training.data.pixels import IGNORED, bits
from training.engine.loop import generator

BACKGROUND, UPPER = bits("background"), bits("upper")


def drawn(count: int) -> tuple[Tensor, Tensor]:
    """Photos of 64 x 48, gray, each with a light garment in the middle."""
    photos = torch.full((count, 3, 64, 48), 0.2)
    allowed = torch.full((count, 64, 48), BACKGROUND)
    photos[:, :, 16:48, 12:36] = 0.9
    allowed[:, 16:48, 12:36] = UPPER
    return photos, allowed


def test_floors_are_the_largest_free_rectangles_mirrored() -> None:
    photos = torch.arange(112, dtype=torch.uint8).repeat(2, 3, 1, 1).transpose(2, 3).repeat(1, 1, 1, 80)
    allowed = torch.full((2, 112, 80), BACKGROUND)
    allowed[0, 40:72, 8:72] = UPPER  # leaves 40 rows above and 40 below
    allowed[1] = IGNORED  # nothing is known of it
    (piece,) = floors(photos, allowed, (112, 80))
    assert piece.shape == (3, 112, 80)
    assert piece[0, :, 0].tolist() == [*range(40), *range(39, -1, -1), *range(32)]
    assert len(floors(photos[1:], allowed[1:], (112, 80))) == 0


def test_a_garment_keeps_its_pixels_on_another_floor() -> None:
    photos, allowed = drawn(150)
    bank = torch.full((1, 3, 64, 48), 128, dtype=torch.uint8)
    laid, labels = lay_down(photos, allowed, bank, generator(0))
    there = (labels == UPPER).flatten(1).any(1)
    assert 130 <= int(there.sum()) < 150  # the others show the floor alone
    inner = laid[there][:, :, 18:46, 14:34]
    assert torch.equal(inner, torch.full_like(inner, 0.9))
    assert (labels[:, :16] == BACKGROUND).all()
    assert set(labels[there][:, 17:47, 13:35].unique().tolist()) == {UPPER}
    changed = (laid[:, :, :14] - 0.2).abs().amax((1, 2, 3))
    assert (changed > 0.05).float().mean() > 0.8
    again, _ = lay_down(photos, allowed, bank, generator(0))
    assert torch.equal(laid, again)
    without, _ = lay_down(photos, allowed, bank[:0], generator(0))
    assert 0 <= without.min() <= without.max() <= 1


def test_what_lies_in_front_is_not_the_garment() -> None:
    photos, allowed = drawn(40)
    seen, labels = put_in_front(photos, allowed, generator(3))
    hidden = labels != allowed
    assert set(labels[hidden].tolist()) == {bits("background", "person", "bag", "headwear", "other")}
    assert (allowed[hidden] == UPPER).all()
    assert hidden.flatten(1).any(1).float().mean() > 0.5
    assert hidden.flatten(1).float().mean(1).max() < 0.2
    changed = (seen != photos).any(1)
    assert changed[hidden].float().mean() == pytest.approx(1.0, abs=0.01)
    assert torch.equal(labels[~changed], allowed[~changed])
