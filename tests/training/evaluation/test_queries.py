"""Who answers queries: a model that remembers its references, and a composer on kept features, answer alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from fashion_retrieval import FashionModel
from tests.inference.test_composition import with_composer
from tests.support.tiny import drawn_photo, tiny_folder
from training.data.features import TextTokens, image_features
from training.engine.distributed import single_process
from training.evaluation.queries import Answers, OnFeatures, Remembering

TEXTS = ["in red", "with long sleeves and a collar, please", "shorter"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory):
    return with_composer(tiny_folder(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(3):
        drawn_photo((40, 56), seed=seed).save(folder / f"{seed}.png")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def on_features(bundle, photos: list[Path], tmp_path_factory: pytest.TempPathFactory):
    tokens = image_features(bundle.encoder.eval(), photos, tmp_path_factory.mktemp("cache"), single_process())
    rows = {photo: row for row, photo in enumerate(photos)}

    def on(composer: nn.Module) -> OnFeatures:
        look_up = lambda some: tokens[[rows[photo] for photo in some]].float()  # noqa: E731  # as a dataset's method
        return OnFeatures(composer, TextTokens(bundle.encoder), look_up, torch.device("cpu"))

    return on


def test_remembering_encodes_a_reference_once(bundle, photos: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model = FashionModel(bundle, model_id="tiny", device="cpu", dtype="float32")
    wanted, encoded = model.compose(photos, TEXTS), []
    real = model.reference
    monkeypatch.setattr(model, "reference", lambda some: encoded.extend(some) or real(some))
    remembering = Remembering(model)
    np.testing.assert_allclose(remembering.compose(photos, TEXTS), wanted, atol=1e-6)
    remembering.compose([photos[1], photos[1]], TEXTS[:2])
    remembering.branches(photos, TEXTS)
    assert encoded == photos


def test_branches_are_the_composers_parts(bundle, photos: list[Path], on_features) -> None:
    model = FashionModel(bundle, model_id="tiny", device="cpu", dtype="float32")
    found = Remembering(model).branches(photos, TEXTS)
    assert [*found] == ["text_branch", "photo_branch"]
    tokens = torch.stack([torch.from_numpy(one.tokens) for one in model.reference(photos)]).float()
    with torch.inference_mode():
        parts = bundle.composer.parts(tokens, *bundle.encoder.text_tokens(bundle.encoder.tokenize(TEXTS)))
    for way, part in (("text_branch", parts.changed), ("photo_branch", parts.kept)):
        np.testing.assert_allclose(found[way], functional.normalize(part, dim=-1), atol=1e-6)
    for way, rows in on_features(bundle.composer).branches(photos, TEXTS).items():
        np.testing.assert_allclose(rows, found[way], atol=2e-3)  # texts' tokens are kept as float16


def test_a_composer_on_kept_features_answers_as_its_model(bundle, photos: list[Path], on_features) -> None:
    model, kept = FashionModel(bundle, model_id="tiny", device="cpu", dtype="float32"), on_features(bundle.composer)
    np.testing.assert_allclose(kept.compose(photos, TEXTS), model.compose(photos, TEXTS), atol=2e-3)
    for given in ({"images": photos}, {"texts": TEXTS}):
        rows = kept.encode(**given)
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        np.testing.assert_allclose(unit, model.encode(**given), atol=2e-3)


class _Sum(nn.Module):
    def forward(self, image: torch.Tensor, text: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        return image[:, 0] + text[torch.arange(len(text)), lengths - 1]


def test_answers_of_another_composer_have_no_branches(photos: list[Path], on_features) -> None:
    asked = [(photos[0], TEXTS[0]), (photos[0], TEXTS[0]), (photos[1], TEXTS[2])]
    wrong = [(photos[2], TEXTS[0])]
    answers = Answers.of(on_features(_Sum()), asked, wrong, photos[1:])
    assert answers.ways == ["composed", "text", "photo", "sum"]
    assert {*answers.photos} == {*photos}
    assert answers.stack("composed", asked).shape == (3, 16)
    np.testing.assert_array_equal(answers.stack("composed", wrong), answers.stack("wrong_photo", wrong))
    both = answers.stack("text", asked), answers.stack("photo", asked)
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in both]
    np.testing.assert_allclose(answers.stack("sum", asked), unit[0] + unit[1], atol=1e-6)
