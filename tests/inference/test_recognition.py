"""Recognition by hand: photos whose embedding is their mean color, words with a chosen cosine to it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from numpy.typing import NDArray

from fashion_retrieval import FashionModel
from fashion_retrieval.errors import InputError, TaxonomyError
from fashion_retrieval.images.pixels import as_pixels
from fashion_retrieval.images.preprocess import RGB, Preprocessing
from fashion_retrieval.inference.colors import dominant_colors
from fashion_retrieval.inference.recognition import Photo, Recognizer, _agreement
from fashion_retrieval.models.probe import Probe
from fashion_retrieval.models.zero_shot import Floats, PromptCache, attribute_view, normalized
from fashion_retrieval.results import Garment, Region
from fashion_retrieval.taxonomy import KINDS, Taxonomy
from tests.support.tiny import drawn_photo, tiny_folder

Vector = tuple[float, float, float]
Words = Mapping[str, Vector]
SCALE = 10.0
RED, GREEN = (255, 0, 0), (0, 255, 0)
WARDROBE: dict[str, Any] = {
    "category": {
        "values": {
            "dress": {"phrases": ["dress"], "kind": "dress"},
            "shirt": {"phrases": ["shirt"], "kind": "upper"},
            "bag": {"phrases": ["bag"], "kind": "bag"},
        }
    },
    "attributes": {
        "sleeve": {
            "applies_to": ["upper", "dress"],
            "values": {
                "long": "long sleeve",
                "short": "short sleeve",
                "hidden": {"phrases": ["covered arms"], "absent": True},
            },
        },
        "texture": {"values": {"solid": ["solid", "unpatterned"], "striped": "striped", "dotted": "dotted"}},
    },
}


def toward(cosine: float) -> Vector:
    """A direction with this cosine to pure red."""
    return cosine, math.sqrt(1 - cosine**2), 0.0


WORDS: Words = {
    "long sleeve": toward(0.9),
    "short sleeve": toward(0.7),
    "covered arms": toward(0.5),
    "solid": toward(0.3),
    "unpatterned": toward(0.3),
    "striped": toward(0.35),
    "dotted": toward(0.1),
    "dress": toward(0.5),
    "shirt": toward(0.6),
    "bag": toward(0.4),
}


class MeanColor(Preprocessing):
    """A photo becomes its mean color, (3,)."""

    def resize(self, image: RGB) -> Any:
        return np.array(as_pixels(image).srgb(), dtype=np.float32).mean((0, 1))


class FixedTowers:
    """A photo's embedding is the direction of its mean color, a text's that of the first word found in it."""

    def __init__(self, words: Words) -> None:
        self.words = words
        self.preprocessing = MeanColor(size=(1, 1), mean=(0, 0, 0), std=(1, 1, 1))
        self.embedding_dim, self.logit_scale = 3, SCALE

    def encode_images(self, levels: Sequence[Any]) -> Floats:
        return normalized(np.stack(levels))

    def encode_texts(self, texts: Sequence[str]) -> Floats:
        rows = [next(row for word, row in self.words.items() if word in text) for text in texts]
        return normalized(np.array(rows, np.float32))


def recognizer(
    words: Words = WORDS,
    taxonomy: Mapping[str, Any] = WARDROBE,
    calibration: dict[str, float] | None = None,
    thresholds: dict[str, float] | None = None,
) -> Recognizer:
    towers: Any = FixedTowers(words)
    return Recognizer(
        towers=towers,
        prompts=PromptCache(towers),
        taxonomy=Taxonomy.load(taxonomy),
        calibration=calibration or {},
        thresholds=thresholds or {},
        model_id="fixed",
    )


def photo(color: tuple[int, int, int], kinds: Sequence[str | None] = (None,)) -> Photo:
    """One color all over, with a whole-photo region for each kind."""
    pixels = np.full((8, 12, 3), color, np.uint8)
    return Photo(as_pixels(pixels), [Region((0, 0, 12, 8), np.ones((8, 12), bool), 1.0, kind) for kind in kinds])


def garment(of: Recognizer, kind: str | None = None, top_k: int = 3) -> Garment:
    return of.reporting(top_k).recognize([photo(RED, [kind])], batch_size=4)[0].garments[0]


def softmax(*cosines: float, scale: float = SCALE) -> NDArray[np.float64]:
    odds: NDArray[np.float64] = np.exp(scale * np.array(cosines))
    return odds / np.sum(odds)


@pytest.mark.parametrize(
    ("category", "region", "factor"),
    [
        ("upper", "upper", 1.0),
        (None, "bag", 1.0),
        ("bag", None, 1.0),
        (None, None, 1.0),
        ("upper", "outerwear", 0.3),
        ("dress", "upper", 0.3),
        ("dress", "skirt", 0.3),
        ("trousers", "legwear", 0.3),
        ("upper", "trousers", 0.02),
        ("outerwear", "skirt", 0.02),
        ("bag", "footwear", 0.02),
        ("other", "headwear", 0.02),
    ],
)
def test_agreement_of_kinds(category: str | None, region: str | None, factor: float) -> None:
    assert _agreement(category, region) == factor
    assert _agreement(region, category) == factor


def test_only_clothes_of_one_half_of_the_body_are_a_family() -> None:
    families = {frozenset({a, b}) for a in KINDS for b in KINDS if _agreement(a, b) == 0.3}
    upper, lower = ("dress", "outerwear", "upper"), ("dress", "legwear", "shorts", "skirt", "trousers")
    assert families == {frozenset({a, b}) for half in (upper, lower) for a in half for b in half if a != b}


def test_categories_are_ranked_and_cut_at_top_k() -> None:
    of = recognizer()
    shares = softmax(0.6, 0.5, 0.4)
    for top_k in (1, 2, 3, 9):
        found = garment(of, top_k=top_k)
        assert [score.name for score in found.categories] == ["shirt", "dress", "bag"][:top_k]
        assert [s.probability for s in found.categories] == pytest.approx(shares[:top_k], abs=1e-6)
        assert found.category == found.categories[0]
        assert len(found.attributes["texture"].alternatives) == min(top_k, 3)


@pytest.mark.parametrize(
    ("kind", "weights", "winner"),
    [
        (None, (1.0, 1.0, 1.0), "shirt"),
        ("upper", (0.3, 1.0, 0.02), "shirt"),
        ("outerwear", (0.3, 0.3, 0.02), "shirt"),
        ("dress", (1.0, 0.3, 0.02), "dress"),
        ("skirt", (0.3, 0.02, 0.02), "dress"),
        ("bag", (0.02, 0.02, 1.0), "bag"),
    ],
)
def test_the_kind_of_the_region_weighs_the_categories(
    kind: str | None, weights: tuple[float, ...], winner: str
) -> None:
    found = garment(recognizer(), kind)
    odds = np.array(weights) * softmax(0.5, 0.6, 0.4)
    by_name = dict(zip(("dress", "shirt", "bag"), odds / odds.sum(), strict=True))
    assert found.category.name == winner
    assert found.kind == kind
    assert {s.name: s.probability for s in found.categories} == pytest.approx(by_name, abs=1e-6)


def test_a_probe_of_the_category_tells_how_much_of_its_probability_is_left() -> None:
    weight, bias = np.array([[2, 0, 0]], np.float32), np.array([-3], np.float32)
    probe = Probe(("told",), weight, bias, np.ones((), np.float32))
    of = replace(recognizer(), probes={"category": probe})
    plain, found = garment(recognizer()), garment(of)
    left = 1 / (1 + np.exp(1))  # the photo is red, its embedding the first axis
    assert [one.name for one in found.categories] == [one.name for one in plain.categories]
    for one, other in zip(found.categories, plain.categories, strict=True):
        assert one.probability == pytest.approx(left * other.probability, rel=1e-5)
    for name, attribute in plain.attributes.items():
        assert found.attributes[name].probability == pytest.approx(attribute.probability, abs=1e-6)
    assert of.fitted == {"category": probe.digest}


def test_the_color_of_the_pixels_is_in_the_category_prompt() -> None:
    words = {"red dress": toward(0.95), "red shirt": toward(0.2), **WORDS}
    of = recognizer(words)
    red, blue = (of.category_probabilities(np.array([1, 0, 0], np.float32), name) for name in ("red", "blue"))
    np.testing.assert_allclose(red, softmax(0.95, 0.2, 0.4), atol=1e-6)
    np.testing.assert_allclose(blue, softmax(0.5, 0.6, 0.4), atol=1e-6)
    found = garment(of)
    assert (found.color, found.category.name, found.title) == ("red", "dress", "red dress")
    assert found.category.probability == pytest.approx(red[0], abs=1e-6)


def test_a_region_without_pixels_has_no_color_and_is_asked_for_as_plain() -> None:
    of = recognizer({"plain bag": toward(0.99), **WORDS})
    region = Region((0, 0, 12, 8), np.zeros((8, 12), bool), 1.0)
    pixels = np.full((8, 12, 3), RED, np.uint8)
    found = of.reporting(1).recognize([Photo(as_pixels(pixels), [region])], batch_size=1)[0].garments[0]
    assert (found.colors, found.color) == ((), None)
    assert found.category.name == "bag"
    assert found.category.probability == pytest.approx(softmax(0.99, 0.5, 0.6)[0], abs=1e-6)


def test_a_visible_attribute_sums_its_synonyms() -> None:
    found = garment(recognizer()).attributes
    long, short, hidden = softmax(0.9, 0.7, 0.5)
    assert (found["sleeve"].value, found["sleeve"].status) == ("long", "visible")
    assert found["sleeve"].probability == pytest.approx(long, abs=1e-6)
    assert [s.probability for s in found["sleeve"].alternatives] == pytest.approx([long, short, hidden], abs=1e-6)
    shares = softmax(0.3, 0.3, 0.35, 0.1)
    assert (found["texture"].value, found["texture"].status) == ("solid", "visible")  # "striped" is the nearest word
    assert found["texture"].probability == pytest.approx(shares[:2].sum(), abs=1e-6)
    assert [s.name for s in found["texture"].alternatives] == ["solid", "striped", "dotted"]


@pytest.mark.parametrize("threshold", [0.0, 0.99])
def test_an_attribute_is_not_visible_where_the_absent_value_wins(threshold: float) -> None:
    found = garment(recognizer({**WORDS, "covered arms": toward(0.95)}, thresholds={"sleeve": threshold})).attributes
    hidden = softmax(0.95, 0.9, 0.7)[0]
    assert (found["sleeve"].value, found["sleeve"].status) == (None, "not_visible")
    assert found["sleeve"].probability == pytest.approx(hidden, abs=1e-6)
    assert found["sleeve"].alternatives[0].name == "hidden"
    assert found["texture"].status == "visible"


def test_an_attribute_is_not_visible_below_its_threshold() -> None:
    long = float(softmax(0.9, 0.7, 0.5)[0])
    below = garment(recognizer(thresholds={"sleeve": long + 1e-4})).attributes["sleeve"]
    assert (below.value, below.status) == (None, "not_visible")
    assert below.probability == pytest.approx(1 - long, abs=1e-6)
    assert [score.name for score in below.alternatives] == ["long", "short", "hidden"]
    above = garment(recognizer(thresholds={"sleeve": long - 1e-4, "texture": 0.0})).attributes["sleeve"]
    assert (above.value, above.status) == ("long", "visible")


def test_an_attribute_is_not_applicable_to_other_kinds() -> None:
    found = garment(recognizer(), "bag")
    sleeve = found.attributes["sleeve"]
    assert found.category.name == "bag"
    assert (sleeve.value, sleeve.status, sleeve.probability, sleeve.alternatives) == (None, "not_applicable", 1.0, ())
    assert found.attributes["texture"].status == "visible"


def test_calibration_is_a_factor_on_the_logits_of_its_group() -> None:
    found = garment(recognizer(calibration={"category": 0.5, "texture": 3.0}))
    assert found.category.probability == pytest.approx(softmax(0.6, 0.5, 0.4, scale=5.0)[0], abs=1e-6)
    shares = softmax(0.35, 0.3, 0.3, 0.1, scale=30.0)
    assert found.attributes["texture"].value == "striped"
    assert found.attributes["texture"].probability == pytest.approx(shares[0], abs=1e-6)
    assert found.attributes["sleeve"].probability == pytest.approx(softmax(0.9, 0.7, 0.5)[0], abs=1e-6)


def test_templates_are_averaged_phrase_by_phrase() -> None:
    words: Words = {
        "photo of checked": (1, 0, 0),
        "photo of plaid": (0, 1, 0),
        "photo of plain": (0, 0, 1),
        "checked cloth": (0, 1, 0),
        "plaid cloth": (1, 0, 1),
        "plain cloth": (1, 1, 0),
        "shirt": (1, 0, 0),
        "dress": (0, 1, 0),
    }
    values = {"lattice": ["checked", "plaid"], "plain": "plain"}
    of = recognizer(
        words,
        {
            "category": {"values": ["shirt", "dress"]},
            "attributes": {
                "t": {"template": ["a photo of {attribute} {category}", "{attribute} cloth"], "values": values}
            },
        },
    )
    pairs = [
        ("photo of checked", "checked cloth"),
        ("photo of plaid", "plaid cloth"),
        ("photo of plain", "plain cloth"),
    ]
    rows = np.array([[np.array(words[w]) / np.linalg.norm(words[w]) for w in pair] for pair in pairs]).mean(1)
    image = np.array([2.0, 1.0, 2.0]) / 3
    shares = softmax(*(rows / np.linalg.norm(rows, axis=1, keepdims=True) @ image))
    group, shirt = of.taxonomy.attributes[0], of.taxonomy.category.values[0]
    found = of.attribute_probabilities(image.astype(np.float32), group, [(shirt, 1.0)])
    assert found.tolist() == pytest.approx([shares[:2].sum(), shares[2]], abs=1e-6)


def test_groups_of_one_name_are_told_apart() -> None:
    of = recognizer()
    shirt, view = of.taxonomy.category.values[0], np.array([0, 1, 0], np.float32)
    group = of.taxonomy.attributes[0]
    turned = replace(group, values=group.values[::-1])
    first, second = (of.attribute_probabilities(view, one, [(shirt, 1.0)]).tolist() for one in (group, turned))
    assert first == pytest.approx(second[::-1], abs=1e-6)
    assert first != pytest.approx(second, abs=1e-3)


def test_category_from_the_crop_attributes_from_crop_and_masked_crop() -> None:
    pixels = np.zeros((8, 12, 3), np.uint8)
    pixels[:, :6], pixels[:, 6:] = RED, GREEN
    mask = np.zeros((8, 12), bool)
    mask[:, :6] = True
    of = recognizer()
    scene = Photo(as_pixels(pixels), [Region((0, 0, 12, 8), mask, 1.0)])
    found = of.recognize([scene], batch_size=4)[0].garments[0]
    crop = normalized(np.array([1, 1, 0], np.float32))
    masked = normalized(np.array([2, 1, 1], np.float32))  # half red, half white
    assert found.category.probability == pytest.approx(of.category_probabilities(crop, "red").max().item(), abs=1e-5)
    view = attribute_view(crop, masked)
    assert np.linalg.norm(view) == pytest.approx(1, abs=1e-6)
    assert crop @ masked < view @ masked < 1
    assert view @ masked > view @ crop
    context = of.category_context(of.category_probabilities(crop, "red"))
    assert context[0][0].name == found.category.name
    assert sum(weight for _, weight in context) == pytest.approx(1)
    for group in of.taxonomy.attributes:
        parts = [weight * of.attribute_probabilities(view, group, [(noun, 1.0)]) for noun, weight in context]
        shares = np.sum(parts, axis=0)
        scores = {score.name: score.probability for score in found.attributes[group.name].alternatives}
        wanted = {value.name: share for value, share in zip(group.values, shares.tolist(), strict=True)}
        assert scores == pytest.approx(wanted, abs=1e-5)


def test_garments_stay_with_their_photo_in_batches_of_any_size() -> None:
    photos = [photo(RED, [None, "bag"]), photo(RED, []), photo(GREEN)]
    found = recognizer().recognize(photos, batch_size=8)
    assert [[g.category.name for g in one.garments] for one in found] == [["shirt", "bag"], [], ["bag"]]
    green = softmax(*(math.sqrt(1 - cosine**2) for cosine in (0.4, 0.5, 0.6)))
    assert [s.probability for s in found[2].garments[0].categories] == pytest.approx(green, abs=1e-6)
    single = recognizer().recognize(photos, batch_size=1)
    assert [one.to_dict() for one in single] == [one.to_dict() for one in found]


def test_the_texts_of_a_call_are_encoded_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for the categories and once for all that is asked of the garments; a second call asks nothing new."""
    fresh = FashionModel.from_pretrained(tiny_folder(tmp_path / "model"), device="cpu", dtype="float32")
    calls: list[int] = []
    encode_texts = fresh.towers.encode_texts

    def counted(texts: Sequence[str]) -> Floats:
        calls.append(len(texts))
        return encode_texts(texts)

    monkeypatch.setattr(fresh.towers, "encode_texts", counted)
    boxes = [[0, 0, 20, 30], [10, 10, 47, 60], [5, 30, 40, 64]]
    found = fresh.recognize(drawn_photo(), boxes=boxes, segmenter=None)
    assert len(found.garments) == 3
    assert len(calls) == 2
    before = len(calls)
    assert fresh.recognize(drawn_photo(), boxes=boxes, segmenter=None).garments == found.garments
    assert len(calls) == before


def test_no_photos_give_no_results() -> None:
    assert recognizer().recognize([], batch_size=1) == []


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> FashionModel:
    return FashionModel.from_pretrained(tiny_folder(tmp_path_factory.mktemp("tiny")), device="cpu", dtype="float32")


def test_words_never_seen_through_the_front_door_equal_plain_open_clip(model: FashionModel, tmp_path: Path) -> None:
    image = drawn_photo(seed=3)
    own = {
        "category": {"values": ["gambeson", "hauberk", "surcoat"]},
        "attributes": {"make": {"values": {"mail": ["chainmail", "ring mail"], "quilted": "quilted"}}},
    }
    found = model.recognize(image, segmenter=None, taxonomy=own, top_k=5).garments[0]

    name = f"local-dir:{tiny_folder(tmp_path / 'same')}"
    clip, *_ = open_clip.create_model_and_transforms(name)
    tokenizer = open_clip.get_tokenizer(name)
    color = dominant_colors(np.asarray(image), np.ones((image.height, image.width), bool))[0].name
    nouns = ("gambeson", "hauberk", "surcoat")
    prompts = [f"a photo of {color} {word}" for word in nouns]
    prompts += [f"a photo of {word} {noun}" for noun in nouns for word in ("chainmail", "ring mail", "quilted")]
    with torch.inference_mode():
        given = torch.from_numpy(model.towers.preprocessing(image)[None])
        pixels = clip.eval().encode_image(given, normalize=True)
        cosines = (clip.encode_text(tokenizer(prompts), normalize=True) @ pixels[0]).tolist()
    scale = clip.logit_scale.exp().item()
    categories = softmax(*cosines[:3], scale=scale)
    makes = sum(
        share * softmax(*cosines[start : start + 3], scale=scale)
        for share, start in zip(categories, (3, 6, 9), strict=True)
    )
    assert {s.name: s.probability for s in found.categories} == pytest.approx(
        dict(zip(nouns, categories, strict=True)), abs=1e-5
    )
    assert {s.name: s.probability for s in found.attributes["make"].alternatives} == pytest.approx(
        {"mail": makes[:2].sum(), "quilted": makes[2]}, abs=1e-5
    )


def test_a_file_a_dict_and_a_taxonomy_give_the_same_answer(model: FashionModel, tmp_path: Path) -> None:
    own = {"category": {"values": ["gambeson", "surcoat"]}}
    file = tmp_path / "own.yaml"
    file.write_text("category: {values: [gambeson, surcoat]}")
    sources = (own, file, str(file), Taxonomy.load(own))
    results = [model.recognize(drawn_photo(), segmenter=None, taxonomy=source).to_dict() for source in sources]
    assert all(result == results[0] for result in results)


def test_what_recognize_refuses(model: FashionModel) -> None:
    with pytest.raises(InputError, match="top_k must be at least 1, got 0"):
        model.recognize(drawn_photo(), top_k=0)
    with pytest.raises(TaxonomyError, match="at least two values"):
        model.recognize(drawn_photo(), taxonomy={"category": {"values": ["one"]}})
