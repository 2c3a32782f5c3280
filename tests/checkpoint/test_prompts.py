"""Prompts that come embedded: on disk, of one encoder alone, and in recognition, where no text is computed again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from fashion_retrieval import FashionModel, Recognition, checkpoint
from fashion_retrieval.checkpoint.extras import Extras, Prompts
from fashion_retrieval.config import ModelConfig
from fashion_retrieval.errors import WeightsError
from fashion_retrieval.models.zero_shot import PromptCache
from tests.support.paths import ROOT
from tests.support.tiny import contents, drawn_photo, tiny_folder

OWN = {
    "category": {"values": ["coat", "dress", "boots"]},
    "attributes": {"era": {"values": ["modern", "medieval"]}, "fit": {"values": ["tight", "wide"]}},
}


def opened(folder: Path) -> FashionModel:
    return FashionModel.from_pretrained(folder, device="cpu", dtype="float32", backend="torch")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> FashionModel:
    """A tiny model with a small taxonomy of its own and no prompts."""
    bundle = checkpoint.load(tiny_folder(tmp_path_factory.mktemp("model")))
    config = ModelConfig(name="tiny", taxonomy=OWN)
    return FashionModel(replace(bundle, config=config), model_id="tiny", device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def prompts(plain: FashionModel) -> Prompts:
    texts = plain.recognizer().every_prompt()
    return Prompts.of(texts, plain.encode(texts=texts))


@pytest.fixture
def folder(plain: FashionModel, prompts: Prompts, tmp_path: Path) -> Path:
    bundle = replace(plain._bundle, extras=Extras(prompts=prompts))
    checkpoint.save(bundle, tmp_path / "ready")
    return tmp_path / "ready"


def no_texts(texts: object) -> NDArray[np.float32]:
    raise AssertionError(f"a text was computed: {texts}")


def differences(one: Recognition, other: Recognition) -> list[float]:
    """Of the probabilities of all that both tell, which must be of the same values."""
    found = []
    for mine, theirs in zip(one.garments, other.garments, strict=True):
        assert mine.category.name == theirs.category.name
        pairs = [(mine.categories, theirs.categories)]
        pairs += [
            (mine.attributes[name].alternatives, theirs.attributes[name].alternatives) for name in mine.attributes
        ]
        for scores, others in pairs:
            shares = {score.name: score.probability for score in others}
            found += [abs(score.probability - shares.get(score.name, 1)) for score in scores]
        found += [abs(a.share - b.share) for a, b in zip(mine.colors, theirs.colors, strict=True)]
    return found


def test_rows_are_found_by_their_text_and_normalized() -> None:
    rows = np.random.default_rng(0).normal(size=(3, 16)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    found = Prompts.of(["a coat", "a dress", ""], rows)
    assert (len(found), found.rows.dtype, found.keys_of_texts.dtype) == (3, np.float16, np.uint64)
    for text, row in zip(["a coat", "a dress", ""], rows, strict=True):
        assert text in found
        assert found[text].dtype == np.float32
        np.testing.assert_allclose(found[text], row, atol=1e-3)
        assert np.linalg.norm(found[text]) == pytest.approx(1, abs=1e-6)
    assert "a Coat" not in found
    assert 7 not in found
    assert found.get("a hat") is None
    with pytest.raises(TypeError, match="kept without their texts"):
        list(found)


def test_prompts_are_saved_loaded_and_saved_again(
    plain: FashionModel, prompts: Prompts, folder: Path, tmp_path: Path
) -> None:
    found = checkpoint.load(folder).extras.prompts
    assert found is not None
    np.testing.assert_array_equal(found.keys_of_texts, prompts.keys_of_texts)
    np.testing.assert_array_equal(found.rows, prompts.rows)
    again = opened(folder).save_pretrained(tmp_path / "again")
    assert contents(again)["prompts.safetensors"] == contents(folder)["prompts.safetensors"]
    assert checkpoint.load(again).config.sha256.keys() >= {"prompts.safetensors"}  # type: ignore[union-attr]  # saved
    plain.save_pretrained(again)
    assert not (again / "prompts.safetensors").exists()


def test_recognition_with_them_is_that_without_and_computes_no_text(
    plain: FashionModel, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = opened(folder)
    monkeypatch.setattr(ready.towers, "encode_texts", no_texts)
    boxes = [[0, 0, 20, 30], [10, 10, 47, 60]]
    for seed in range(4):
        asked: dict[str, Any] = {"boxes": boxes, "segmenter": None}
        found, wanted = (model.recognize(drawn_photo(seed=seed), **asked) for model in (ready, plain))
        assert max(differences(found, wanted)) < 2e-3
    assert len(ready._prompts) == 0
    with pytest.raises(AssertionError, match="a text was computed"):
        ready.recognize(drawn_photo(), segmenter=None, taxonomy=OWN | {"category": {"values": ["hat", "coat"]}})


def test_texts_of_users_are_computed_all_the_same(plain: FashionModel, folder: Path) -> None:
    text = plain.recognizer().every_prompt()[0]
    found, wanted = (model.encode(texts=text) for model in (opened(folder), plain))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)  # in float32, not as it was kept


def test_the_embedded_model_has_all_of_its_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    model = FashionModel.from_pretrained(device="cpu", dtype="float32", backend="torch")
    prompts = model._extras.prompts
    assert prompts is not None
    assert len(prompts) == len(model.recognizer().every_prompt())
    assert all(text in prompts for text in model.recognizer().every_prompt())
    photo = ROOT / "examples/astronaut.jpg"
    boxes = [[20, 150, 500, 512]]
    computed = FashionModel(model._ready, model_id="compact")
    computed._prompts = PromptCache(computed.towers)
    computed._recognizers._parts["prompts"] = computed._prompts
    wanted = computed.recognize(photo, boxes=boxes)
    assert len(computed._prompts) > 100
    monkeypatch.setattr(model.towers, "encode_texts", no_texts)
    found = model.recognize(photo, boxes=boxes)
    assert max(differences(found, wanted)) < 2e-3
    monkeypatch.undo()
    few = model.recognizer().every_prompt()[::400]
    np.testing.assert_allclose(np.stack([prompts[text] for text in few]), model.encode(texts=few), atol=2e-4)


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (
            "encoder",
            r"was made with another encoder \(None…\) than the one beside it; remove the file, or make it again",
        ),
        ("other", r"was made with another encoder \([0-9a-f]{12}…\) than the one beside it"),
        ("rows", r"must hold uint64 keys \(N,\) and float16 rows \(N, 16\), got uint64 .*, float16 \(1, 16\)"),
        ("width", r"must hold uint64 keys \(N,\) and float16 rows \(N, 16\), got .*, float16 \(\d+, 8\)"),
        ("type", r"must hold uint64 keys \(N,\) and float16 rows \(N, 16\), got .*, float32 "),
        ("keys", r"must hold uint64 keys \(N,\) and float16 rows \(N, 16\), got float64 \(0,\), float16 "),
        ("truncated", "prompts.safetensors is truncated or corrupt"),
        ("altered", "prompts.safetensors was altered or cut off"),
        ("missing", "expected the file prompts.safetensors in .*, found none"),
    ],
)
def test_prompts_that_are_damaged_or_of_another_encoder_are_refused(
    folder: Path, tmp_path: Path, fault: str, told: str
) -> None:
    path, config = folder / "prompts.safetensors", folder / "fashion_retrieval.json"
    content, known, good = path.read_bytes(), json.loads(config.read_text(encoding="utf-8")), load_file(path)
    keys, rows = good["keys"], good["rows"]
    if fault == "missing":
        path.unlink()
    elif fault == "altered":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    else:
        del known["sha256"]["prompts.safetensors"]
        config.write_text(json.dumps(known), encoding="utf-8")
        wrong = {
            "rows": {"keys": keys, "rows": rows[:1].copy()},
            "width": {"keys": keys, "rows": rows[:, :8].copy()},
            "type": {"keys": keys, "rows": rows.astype(np.float32)},
            "keys": {"rows": rows},
        }
        if fault == "truncated":
            path.write_bytes(content[:100])
        elif fault == "other":
            other = checkpoint.load(tiny_folder(tmp_path / "other", seed=1))
            checkpoint.save(replace(other, extras=Extras(prompts=Prompts(keys, rows))), tmp_path / "strange")
            path.write_bytes((tmp_path / "strange" / path.name).read_bytes())
        else:
            save_file(wrong.get(fault, good), path)
    with pytest.raises(WeightsError, match=told) as caught:
        opened(folder)
    assert "\n" not in str(caught.value)
