"""Other spellings of a phrase."""

from __future__ import annotations

import pytest
import torch

from training.data.spellings import mistyped, spellings

KNOWN = {"sweat", "shirt", "neck", "tie", "hand", "bag"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("t-shirt", {"t shirt", "tshirt", "t-shirts", "t shirts", "tshirts"}),
        ("sweatshirt", {"sweat shirt", "sweat-shirt", "sweat shirts", "sweat-shirts", "sweatshirts"}),
        ("necktie", {"neck tie", "neck-tie", "neck ties", "neck-ties", "neckties"}),
        ("grey", {"gray", "grays", "greys"}),
        ("dress", {"dresses"}),
        ("watches", {"watch"}),
        ("scarf", {"scarves", "scarfs"}),
        ("berry", {"berries", "berrys"}),
    ],
)
def test_spellings(text: str, expected: set[str]) -> None:
    assert set(spellings(text, KNOWN)) == expected


def test_spellings_leave_out_the_text_itself_and_are_sorted() -> None:
    found = spellings("v-neck jumper", KNOWN)
    assert "v-neck jumper" not in found
    assert {"vneck jumper", "v neck jumper", "v-neck jumpers", "vneckjumper"} <= set(found)
    assert found == sorted(found)


def test_mistyped_has_one_slip_in_a_word_of_five_letters() -> None:
    found = {mistyped("red jumper", torch.Generator().manual_seed(seed)) for seed in range(200)}
    assert {"red jupmer", "red jmper", "red jummper"} <= found
    assert all(text.startswith("red j") and abs(len(text) - len("red jumper")) <= 1 for text in found)
    assert mistyped("a tie", torch.Generator().manual_seed(0)) == "a tie"
