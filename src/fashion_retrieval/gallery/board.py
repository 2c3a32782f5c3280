"""Retrieval boards as pictures: what a query and its results are, told and drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from fashion_retrieval.gallery.comparison import BoardReference, tell_board
from fashion_retrieval.results import Explanation, Match
from fashion_retrieval.results.picture import picture_of
from fashion_retrieval.taxonomy import Taxonomy


def draw_board(
    matches: Sequence[Match],
    *,
    reference: BoardReference | None = None,
    text: str | None = None,
    taxonomy: Taxonomy | Mapping[str, Any] | str | Path = "default",
    caption: str | None = None,
    width: int | None = None,
    font: str | Path | None = None,
    max_pixels: int | None = None,
    explanation: Explanation | None = None,
) -> Image.Image:
    """Draw what `tell_board` tells as an RGB image whose height follows from the number of results.

    A photo of a result that can't be read is an empty frame; `width` and `font` are as in `Recognition.draw`.
    """
    told: dict[str, Any] = {"reference": reference, "text": text, "taxonomy": taxonomy, "caption": caption}
    told |= {"max_pixels": max_pixels, "explanation": explanation}
    return picture_of(tell_board(matches, **told), width=width, font=font)
