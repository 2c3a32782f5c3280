"""Triplets made from labels."""

from __future__ import annotations

from pathlib import Path

from tests.support.drawn_products import COLORS, write_products
from training.data.derived import Product, derive, describe, read_products
from training.engine.loop import generator


def test_derived_triplets_say_what_the_target_has(tmp_path: Path) -> None:
    products = read_products(write_products(tmp_path), None)
    assert len(products) == 36
    triplets = derive(products, 60, generator(0))
    assert triplets == derive(products, 60, generator(0))
    looks = {product.id: product for product in products}
    for triplet in triplets:
        candidate, target = looks[triplet.candidate], looks[triplet.target]
        assert candidate.group == target.group
        text = " ".join(triplet.captions)
        for word in COLORS:
            assert (word in text.split()) <= (word == target.values["color"])
        for sleeve, word in (("long_sleeve", "long"), ("short_sleeve", "short"), ("sleeveless", "sleeveless")):
            assert (word in text) <= (sleeve == target.values["sleeve"])
    assert describe(products[0], products[0], generator(0)) is None
    assert derive([Product("1", "shirt", {"color": "red"})], 5, generator(0)) == []
