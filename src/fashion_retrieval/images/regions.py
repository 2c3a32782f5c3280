"""Regions of a photo: boxes from users, and crops along boxes and masks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fashion_retrieval.errors import InputError

_TINY = 2
"""Up to this side in pixels, a box may well be one pixel of the photo."""


def crop_region(image: NDArray[np.uint8], box: Sequence[float] | NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """The part of the photo, (H, W, 3), inside the box (`pixel_box`), in the photo's own memory."""
    return image[pixel_box(box, *image.shape[:2])]


def masked_crop(
    image: NDArray[np.uint8], box: Sequence[float] | NDArray[np.floating[Any]], mask: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """`crop_region`, white outside the mask, (H, W) bool; in the photo's own memory where all is inside."""
    if mask.shape != image.shape[:2] or mask.dtype != np.bool_:
        expected = f"{image.shape[:2]} bool, the photo's height and width"
        raise InputError(f"a mask must be {expected}, got {mask.dtype} {mask.shape}; resize it to the photo")
    crop, inside = crop_region(image, box), mask[pixel_box(box, *image.shape[:2])]
    return crop if inside.all() else np.where(inside[..., None], crop, np.uint8(255))


def check_boxes(boxes: ArrayLike, width: int, height: int) -> NDArray[np.float32]:
    """Boxes from a user, (N, 4) xyxy in pixels, clipped to the upright photo.

    The result is float32 with 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height, else an `InputError` is raised; so
    it is where the boxes are fractions of the photo.
    """
    try:
        with np.errstate(over="ignore"):
            array = np.asarray(boxes, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(f"boxes must be (N, 4) numbers, x1 y1 x2 y2 in pixels, got {boxes!r:.60}") from error
    if array.size == 0:
        return np.zeros((0, 4), dtype=np.float32)
    if array.ndim != 2 or array.shape[1] != 4:
        raise InputError(f"boxes must have shape (N, 4), x1 y1 x2 y2 in pixels, got {array.shape}; one box is [[…]]")
    clipped = np.clip(array, 0, np.array([width, height, width, height], dtype=np.float32))
    for index, (box, inside) in enumerate(zip(array, clipped, strict=True)):
        shown = f"boxes[{index}] = {[round(float(value), 2) for value in box]}"
        if not np.isfinite(box).all():
            raise InputError(f"{shown} must hold finite numbers; leave the box out or correct it")
        if not (box[:2] < box[2:]).all():
            raise InputError(f"{shown} must be x1 y1 x2 y2 with x2 > x1 and y2 > y1, not x y width height")
        if not (inside[:2] < inside[2:]).all():
            raise InputError(f"{shown} lies outside the photo of {width}x{height} pixels; boxes are in upright pixels")
    if array.max() <= 1 and max(width, height) > _TINY:
        remedy = f"multiply x1, x2 by the width, {width}, and y1, y2 by the height, {height}"
        raise InputError(f"boxes must be in pixels, got fractions of the photo, all values at most 1; {remedy}")
    return clipped


def pixel_box(box: Sequence[float] | NDArray[np.floating[Any]], height: int, width: int) -> tuple[slice, slice]:
    """The rows and columns of a photo that a box, xyxy in pixels, covers: rounded outwards, clipped, never empty.

    Every crop and every mask of a box follows this one rule.
    """
    x1, y1, x2, y2 = (float(value) for value in box)
    left, top = (min(max(math.floor(low), 0), length - 1) for low, length in ((x1, width), (y1, height)))
    right = min(max(math.ceil(x2), left + 1), width)
    bottom = min(max(math.ceil(y2), top + 1), height)
    return slice(top, bottom), slice(left, right)


def box_mask(box: Sequence[float] | NDArray[np.floating[Any]], height: int, width: int) -> NDArray[np.bool_]:
    """(height, width) bool, true for the pixels of a box (`pixel_box`)."""
    mask = np.zeros((height, width), dtype=bool)
    mask[pixel_box(box, height, width)] = True
    return mask


def mask_box(mask: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    """The tight box around a mask that is not empty, xyxy in pixels."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def labeled(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int32], list[tuple[slice, slice]]]:
    """Parts of a (H, W) mask whose pixels touch side by side: (H, W) numbers from 1, 0 outside, and each part's place.

    As `scipy.ndimage.label` and `find_objects`, importing which takes longer than anything else but torch. Runs of
    pixels in a row are joined with the runs of the row below that they touch.
    """
    height, width = mask.shape
    framed = np.zeros((height, width + 1), bool)  # so that no run goes on into the next row
    framed[:, :width] = mask
    flat = np.zeros(framed.size + 1, bool)
    flat[1:] = framed.ravel()
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    starts, ends = edges[::2], edges[1::2]
    first = np.searchsorted(ends, starts + width + 1, side="right")
    past = np.searchsorted(starts, ends + width + 1, side="left")
    owner = list(range(len(starts)))

    def root(run: int) -> int:
        while owner[run] != run:
            owner[run] = run = owner[owner[run]]
        return run

    for run, below in enumerate(zip(first.tolist(), past.tolist(), strict=True)):
        for other in range(*below):
            low, high = sorted((root(run), root(other)))
            owner[high] = low
    roots, numbers = np.unique([root(run) for run in range(len(starts))], return_inverse=True)
    rows, left = np.divmod(starts, width + 1)
    order = np.argsort(numbers, kind="stable")
    heads = np.searchsorted(numbers[order], np.arange(len(roots)))
    sides = [rows, rows, left, ends - rows * (width + 1)]
    reductions = (np.minimum, np.maximum, np.minimum, np.maximum)
    top, bottom, start, stop = (
        (reduce.reduceat(side[order], heads).tolist() for reduce, side in zip(reductions, sides, strict=True))
        if len(roots)
        else ([], [], [], [])
    )
    places = [(slice(t, b + 1), slice(a, z)) for t, b, a, z in zip(top, bottom, start, stop, strict=True)]
    if len(roots) == 1:
        return mask.astype(np.int32), places
    steps = np.zeros(framed.size + 1, np.int32)
    steps[starts] = numbers + 1
    steps[ends] -= (numbers + 1).astype(np.int32)
    return np.cumsum(steps[:-1], dtype=np.int32).reshape(framed.shape)[:, :width], places
