"""Estimated masks of the garment in photos without one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from fashion_retrieval.inference.colors import to_lab

Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]

_SQUARE = np.ones((3, 3), dtype=np.bool_)
_BORDER = 3
_TIGHT, _LOOSE, _RINGING = 5.0, 22.0, 13.0
_STEP, _EDGE = 3.0, 25.0
_MIN_PART, _MIN_HOLE = 0.004, 0.0015


def studio_mask(rgb: NDArray[np.uint8]) -> Mask:
    """The subject of a studio photo: everything that a flood fill of the background from the border doesn't reach.

    The background is a smooth gradient fitted to the border. The flood runs over pixels that hardly differ from it, and
    over soft shadows, which differ more but have no edges. Outlines with small gaps hold, so a white garment on white
    stays whole. Holes that the background shows through (between arm and body, in a bag's handle) are left out when
    they are as flat as the background and have a sharp edge. All True if no background can be separated.

    Made for HWC uint8 photos of 150 to 500 pixels on the long side; the least is 16x16.
    """
    photo = rgb.astype(np.float32)
    distance = np.abs(photo - _background(photo)).max(axis=-1)
    step = _gradient(photo)
    noise = float(np.median(distance[_frame(distance.shape)]))
    flat = distance < _TIGHT + noise
    soft = (distance < _LOOSE + noise) & (step < _STEP + noise) & (np.ptp(photo, axis=-1) < 12.0)
    subject = ~_flood(~_close(~flat))
    without_shadows = ~_flood(~_close(~(flat | soft)))
    if without_shadows.sum() > 0.8 * subject.sum():
        subject = without_shadows
    subject = _peel(subject, (distance < _RINGING + noise) & _grow(step > _EDGE, 6))
    subject = _keep_large(_grow(_shrink(subject & ~_holes(subject, distance, noise))))
    return subject if subject.mean() > 0.01 else np.ones_like(subject)


def subject_mask(rgb: NDArray[np.uint8], *, size: int = 96, rounds: int = 6) -> Mask:
    """The subject of a user's own photo: one garment near the center, on a bed, a floor or a door.

    Two color histograms, of the subject and of its surroundings, start from a prior for the center and are re-estimated
    `rounds` times, `size` pixels on the short side, from the pixels assigned to them; the evidence is smoothed over a
    pixel's neighbors. All True if nothing stands out.
    """
    height, width = rgb.shape[:2]
    scale = size / min(height, width)
    small = Image.fromarray(rgb).resize((round(width * scale), round(height * scale)), Image.Resampling.BOX)
    lab = to_lab(np.asarray(small))
    bins, mixing = _color_bins(lab)
    prior = _center_prior(lab.shape[0], lab.shape[1])
    odds = np.log(prior / (1 - prior))
    inside = prior
    for _ in range(rounds):
        subject = mixing @ np.bincount(bins.ravel(), inside.ravel()) + 1e-6
        around = mixing @ np.bincount(bins.ravel(), 1 - inside.ravel()) + 1e-6
        evidence = np.log((subject / subject.sum()) / (around / around.sum()))[bins]
        inside = 1 / (1 + np.exp(-(1.5 * _blur(evidence, 1) + 0.5 * _blur(evidence, 4) + odds)))
    levels = Image.fromarray((255 * _blur(inside, 1)).astype(np.uint8))
    mask: Mask = np.asarray(levels.resize((width, height), Image.Resampling.BILINEAR)) > 127
    return mask if mask.any() else ~mask


def _color_bins(lab: Floats) -> tuple[NDArray[np.int64], Floats]:
    """Each pixel's color cell, (H, W), and how much the cells count for each other, (cells, cells)."""
    grid = ((lab + np.float32(128)) / np.array([6.0, 5.0, 5.0], dtype=np.float32)).astype(np.int64)
    cells = grid[..., 0] * 4096 + grid[..., 1] * 64 + grid[..., 2]
    _, flat = np.unique(cells, return_inverse=True)
    flat = flat.ravel()
    count = np.bincount(flat)
    means = np.stack([np.bincount(flat, lab[..., c].ravel()) / count for c in range(3)], axis=-1)
    difference = (means[:, None] - means[None]) * np.array([0.7, 1.0, 1.0])
    mixing: Floats = np.exp(-(difference**2).sum(axis=-1) / 50.0).astype(np.float32)
    return flat.reshape(lab.shape[:2]), mixing


def _center_prior(height: int, width: int) -> Floats:
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    prior: Floats = 0.75 * np.clip(1.0 - (x**2 + y**2) / 1.1, 0.02, 0.97)
    prior[np.maximum(np.abs(x), np.abs(y)) > 0.96] = 0.03
    return prior


def _blur(values: NDArray[np.floating], radius: int) -> NDArray[np.floating]:
    """Mean over a (2 radius + 1) square, edges repeated."""
    window = 2 * radius + 1
    for axis in (0, 1):
        pad = [(radius + 1, radius) if axis == side else (0, 0) for side in (0, 1)]
        total = np.pad(values, pad, mode="edge").cumsum(axis=axis)
        size = values.shape[axis]
        values = (total.take(range(window, window + size), axis) - total.take(range(size), axis)) / window
    return values


def _background(photo: Floats) -> Floats:
    """A gradient per channel fitted to the border by least absolute deviations, so that a subject may touch it."""
    height, width = photo.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    basis = np.stack([np.ones_like(x), x, y, y**2, y**3], axis=-1)
    frame = _frame((height, width))
    design, target = basis[frame], photo[frame]
    light = target.min(axis=-1)
    weight = (light > np.median(light) - 60.0).astype(np.float32)
    for _ in range(12):
        root = np.sqrt(weight)[:, None]
        surface = np.linalg.lstsq(design * root, target * root, rcond=None)[0]
        weight = 1.0 / (1.0 + np.abs(target - design @ surface).max(axis=-1)) ** 1.5
    fitted: Floats = np.clip(basis @ surface, 0.0, 255.0).astype(np.float32)
    return fitted


def _frame(shape: tuple[int, ...]) -> Mask:
    frame = np.ones(shape[:2], dtype=np.bool_)
    frame[_BORDER:-_BORDER, _BORDER:-_BORDER] = False
    return frame


def _gradient(photo: Floats) -> Floats:
    """The largest difference to the four neighbors over all channels: (H, W)."""
    step = np.zeros(photo.shape[:2], dtype=np.float32)
    across = np.abs(np.diff(photo, axis=1)).max(axis=-1)
    down = np.abs(np.diff(photo, axis=0)).max(axis=-1)
    for view, value in ((step[:, 1:], across), (step[:, :-1], across), (step[1:], down), (step[:-1], down)):
        np.maximum(view, value, out=view)
    return step


def _flood(passable: Mask) -> Mask:
    """The passable pixels that are connected to the border."""
    edge = np.zeros_like(passable)
    edge[[0, -1]] = edge[:, [0, -1]] = True
    return spread(passable & edge, passable)


def spread(seed: Mask, passable: Mask) -> Mask:
    """The 4-connected parts of `passable` that hold a seed: (H, W) bool."""
    reached: Mask = ndimage.binary_propagation(seed & passable, mask=passable)
    return reached


def _grow(mask: Mask, times: int = 1) -> Mask:
    grown: Mask = ndimage.binary_dilation(mask, _SQUARE, times)
    return grown


def _shrink(mask: Mask, times: int = 1) -> Mask:
    return ~_grow(~mask, times)


def _close(mask: Mask) -> Mask:
    return _shrink(_grow(mask, 2), 2)


def _peel(subject: Mask, ringing: Mask, depth: int = 7) -> Mask:
    """The subject without the compression noise around its outline, at most `depth` pixels deep."""
    for _ in range(depth):
        subject = subject & (_shrink(subject) | ~ringing)
    return subject


def _holes(subject: Mask, distance: Floats, noise: float) -> Mask:
    """Background that the subject encloses: as bright and flat as it, and with a sharp edge nearly all around."""
    flat, bright = distance < 2.0 + noise, subject & (distance < _RINGING + noise)
    parts, count = ndimage.label(spread(_shrink(flat & subject, 2), bright))
    holes = np.zeros_like(subject)
    for number in range(1, count + 1):
        part = parts == number
        rim = _grow(part, 2) & ~part & subject
        if part.mean() > _MIN_HOLE and flat[part].mean() > 0.5 and np.quantile(distance[rim], 0.25) > _EDGE:
            holes |= part
    return holes


def _keep_large(mask: Mask) -> Mask:
    parts, _ = ndimage.label(mask)
    large = np.bincount(parts.ravel()) >= _MIN_PART * mask.size
    large[0] = False
    kept: Mask = large[parts]
    return kept
