"""Typed words by a tiny model: shares and cosines are those of the embeddings."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fashion_retrieval import FashionModel
from fashion_retrieval.taxonomy import Taxonomy
from tests.support.tiny import tiny_folder
from training import evaluate
from training.data.typed_words import TypedWord, TypedWords, in_test_half
from training.evaluation import typed_words
from training.evaluation.typed_words import evaluate_typed_words

WORDS = TypedWords(
    (
        TypedWord("tshirt", "category", ("tee",)),
        TypedWord("jumper", "category", ("sweater",)),
        TypedWord("pumps", "category", ("heels", "flats")),
        TypedWord("navy", "color", ("blue",)),
        TypedWord("no sleeves", "sleeve", ("sleeveless",)),
        TypedWord("grey", "color", ("gray",)),
    ),
    {"spacing": [("t-shirt", "tshirt")], "typos": [("sweater", "sweter"), ("jacket", "jaket"), ("hoodie", "hoddie")]},
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> FashionModel:
    folder = tiny_folder(tmp_path_factory.mktemp("model"))
    return FashionModel.from_pretrained(folder, device="cpu", dtype="float32")


def test_evaluate_typed_words_counts_what_the_embeddings_say(model: FashionModel, tmp_path: Path) -> None:
    results = evaluate_typed_words(model, WORDS, made=frozenset({"grey"}), data=tmp_path)
    assert [results[part]["attributes"]["words"] for part in ("train", "test", "unseen")] == [1, 2, 1]
    values = Taxonomy.load("default").category.values
    phrases = [(value.name, f"a photo of plain {phrase}") for value in values for phrase in value.phrases]
    classes = model.encode(texts=[prompt for _, prompt in phrases])
    scale = model.recognizer("default", 1).towers.logit_scale
    for half, tests in (("train", False), ("test", True)):
        words = [word for word in WORDS.words if word.group == "category" and in_test_half(word.text) == tests]
        found = results[half]["category"]
        logits = scale * model.encode(texts=[word.text for word in words]) @ classes.T
        weights = np.exp(logits - logits.max(1, keepdims=True))
        sums = {n: weights[:, [own == n for own, _ in phrases]].sum(1) for n in {name for name, _ in phrases}}
        best = [max((of[row], name) for name, of in sums.items())[1] for row in range(len(words))]
        right = [name in word.meanings for name, word in zip(best, words, strict=True)]
        assert found["words"] == len(words)
        assert found["top1"] == pytest.approx(np.mean(right))
        assert found["wrong"] == {w.text: n for w, n, ok in zip(words, best, right, strict=True) if not ok}
        pairs = [pair for kind in WORDS.pairs.values() for pair in kind if in_test_half(pair[1]) == tests]
        cosines = [float(np.prod(model.encode(texts=[*pair]), axis=0).sum()) for pair in pairs]
        assert results[half]["pairs"]["mean"] == pytest.approx(np.mean(cosines), abs=1e-5)
        assert results[half]["pairs"]["least"] == pytest.approx(min(cosines), abs=1e-5)
        assert results[half]["pairs"]["share_at_0.9"] == pytest.approx(np.mean(np.array(cosines) >= 0.9))


def test_words_command_writes_the_results_and_what_is_kept(
    model: FashionModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "read_typed_words", lambda: WORDS)
    monkeypatch.setattr(typed_words, "_known_texts", lambda data: {"captions": ["is red", "shorter"]})
    folder = str(model.model_id)
    output = tmp_path / "words.json"
    with pytest.raises(SystemExit, match="0"):
        evaluate.run(["words", "--model", folder, "--before", folder, "--output", str(output)])
    found = json.loads(output.read_text())
    assert found["kept"] == {"captions": {"count": 2, "mean": 1.0, "least": 1.0}}
    assert found["config"] == {"before": folder}
    assert found["fingerprint"] == model.fingerprint
