"""Parts of masks, as scipy finds them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from fashion_retrieval.images.regions import labeled


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (7, 8), (40, 33), (120, 90)])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.55, 0.6, 0.9, 1.0])
def test_labeled_parts_are_those_of_scipy(size: tuple[int, int], share: float) -> None:
    mask = np.random.default_rng(0).random(size) < share
    labels, places = labeled(mask)
    expected, count = ndimage.label(mask)
    np.testing.assert_array_equal(labels, expected)
    assert places == ndimage.find_objects(expected)
    assert len(places) == count


def test_labeled_follows_a_part_that_winds() -> None:
    mask = np.ones((41, 41), bool)
    mask[1::4, :-1] = mask[3::4, 1:] = False  # a snake from the top to the bottom
    labels, places = labeled(mask)
    assert len(places) == 1
    np.testing.assert_array_equal(labels, mask)
