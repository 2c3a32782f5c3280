"""Photos that were never taken: portraits, painted garments and other scenes, their labels still exact."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from training.data.augment import draw_placement
from training.data.pixels import IGNORED, bits
from training.data.scenes import change_scenes, grain, portrait_places, repaint
from training.engine.loop import generator

BACKGROUND, PERSON, UPPER, SKIRT = (bits(name) for name in ("background", "person", "upper", "skirt"))


def drawn() -> tuple[Tensor, Tensor]:
    """Three photos of 64 x 48: a head, a shirt, a skirt; the same, moved; one of which nothing is known."""
    photos = torch.full((3, 3, 64, 48), 0.9)
    allowed = torch.full((3, 64, 48), BACKGROUND)
    for row, x in ((0, 10), (1, 26)):
        for kind, level, top, bottom in ((PERSON, 0.7, 8, 16), (UPPER, 0.4, 16, 32), (SKIRT, 0.1, 32, 60)):
            photos[row, :, top:bottom, x : x + 12] = level
            allowed[row, top:bottom, x : x + 12] = kind
    allowed[2] = IGNORED
    return photos, allowed


def test_portraits_show_heads_and_end_below_them() -> None:
    _, allowed = drawn()
    placement = draw_placement(3, (64, 48), generator(0), (0.9, 1.1))
    moved = portrait_places(allowed.to(torch.int16), placement, 1.0, generator(1))
    assert torch.equal(moved[2], placement[2])
    assert torch.equal(portrait_places(allowed, placement, 0.0, generator(1)), placement)
    grid = functional.affine_grid(moved, [3, 1, 64, 48], align_corners=False)
    seen = functional.grid_sample(allowed[:, None].float(), grid, mode="nearest", align_corners=False)[:2, 0].long()
    for row in range(2):
        assert (seen[row] == PERSON).any()
        assert (seen[row] == UPPER).any()
        assert (seen[row] != BACKGROUND).float().mean() > 2 * (allowed[row] != BACKGROUND).float().mean()


def test_a_painted_garment_has_another_mean_and_the_same_folds() -> None:
    photos, allowed = drawn()
    photos += 0.02 * torch.randn(photos.shape, generator=generator(5))
    painted = repaint(photos, allowed, 1.0, generator(2))
    assert torch.equal(painted[2], photos[2])
    for row in range(2):
        changed = (painted[row] != photos[row]).any(0)
        (kind,) = {int(value) for value in allowed[row][changed]}
        assert kind in (UPPER, SKIRT)
        area = allowed[row] == kind
        assert changed[area].float().mean() > 0.9
        before, after = photos[row][:, area], painted[row][:, area]
        assert (after.mean(1) - before.mean(1)).abs().max() > 0.05
        inner = (after > 0).all(0) & (after < 1).all(0)
        assert torch.corrcoef(torch.stack([before[0][inner], after[0][inner]]))[0, 1] > 0.99
    assert torch.equal(repaint(photos, allowed, 0.0, generator(2)), photos)


def test_a_cut_out_takes_its_labels_along() -> None:
    photos, allowed = drawn()
    exact = torch.tensor([True, True, False])
    for seed in range(8):
        scenes, labels = change_scenes(photos, allowed, exact, 1.0, generator(seed))
        assert torch.equal(scenes[2], photos[2])
        assert torch.equal(labels[2], allowed[2])
        for row in range(2):
            middle = allowed[row, :, 22] if row == 0 else allowed[row, :, 37]
            inside = labels[row, 9:59, 15 if row == 0 else 32]
            assert set(inside.tolist()) == {PERSON, UPPER, SKIRT}
            assert set(middle.tolist()) <= {BACKGROUND, PERSON, UPPER, SKIRT}
            shirt = labels[row] == UPPER
            deep = -functional.max_pool2d(-shirt[None].float(), 3, 1, 1)[0] > 0
            assert scenes[row][:, deep].sub(0.4).abs().max() < 0.01
    assert torch.equal(change_scenes(photos, allowed, exact, 0.0, generator(0))[0], photos)


def test_behind_a_cut_out_are_other_people_or_a_backdrop() -> None:
    photos, allowed = drawn()
    behind = set()
    for seed in range(12):
        _, labels = change_scenes(photos, allowed, torch.tensor([False, True, False]), 1.0, generator(seed))
        behind.add(int((labels[0, :, 30] != BACKGROUND).sum()) > 0)
    assert behind == {True, False}
    _, labels = change_scenes(photos, allowed, torch.zeros(3, dtype=torch.bool), 1.0, generator(0))
    assert (labels[0, :, 30] == BACKGROUND).all()


def test_grain_is_on_half_of_the_photos() -> None:
    photos = torch.full((400, 3, 4, 4), 0.5)
    noise = (grain(photos, generator(0)) - photos).flatten(1).std(1)
    assert (noise == 0).float().mean().item() == pytest.approx(0.5, abs=0.08)
    assert 0.04 < noise.max() < 0.08
