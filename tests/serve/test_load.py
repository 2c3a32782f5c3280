"""The service as a process, under load: right answers, overload, and its end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.serve import ending, overload, soak
from benchmarks.serve.bad import RECOGNIZE
from benchmarks.serve.client import form_request
from benchmarks.serve.mixed import GALLERY, Question, bad_questions, difference, good_questions, mix
from benchmarks.serve.service import Service
from fashion_retrieval import FashionModel, Gallery
from tests.serve.conftest import photo_file
from tests.support.exported import trained_composer, trained_encoder

QUEUE = 16
"""Two clients that ask for seven texts at once find room in it, thirty-two with a photo do not."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, and a gallery of four photos beside it."""
    root = tmp_path_factory.mktemp("serve")
    return trained_composer(root / "model", trained_encoder(root / "encoder"))


@pytest.fixture(scope="module")
def model(folder: Path) -> FashionModel:
    return FashionModel.from_pretrained(folder, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def gallery(folder: Path, model: FashionModel) -> Iterator[Gallery]:
    paths = [folder.parent / f"{number}.png" for number in range(4)]
    for number, path in enumerate(paths):
        path.write_bytes(photo_file(number))
    with Gallery.create(folder.parent / "gallery", model, fields={"category": str, "color": str}) as made:
        made.add(paths, [f"shirt/{n}" for n in range(4)], [{"category": "top", "color": "red"}] * 4)
        yield made


def test_a_process_answers_rightly_refuses_what_is_too_much_and_ends_in_order(
    folder: Path, model: FashionModel, gallery: Gallery
) -> None:
    named = f"{GALLERY}={folder.parent / 'gallery'}"
    with Service(named, "--model", str(folder), "--dtype", "float32", "--queue", str(QUEUE), "--no-page") as service:
        photos = [photo_file(number, kind="JPEG") for number in range(3)]
        asked = list(mix(good_questions(service.port, model, gallery, photos), bad_questions(photos[0]), 300))
        found = soak.soak(service, asked, clients=2)
        assert (found["faults"], found["bad"], sum(found["statuses"].values())) == ([], 15, 300)
        assert len({question.kind for question in asked if not question.kind.startswith("bad")}) == 12

        photo = [form_request(RECOGNIZE, [("photos", "a.jpg", photo)]) for photo in photos]
        found = overload.overload(service, photo, seconds=2, rate=2_000, clients=32)
        assert found["first_faults"] == []
        assert set(found["statuses"]) == {"200", "503"}
        assert found["health_ms"]["asked"] > 5

        found = ending.end(service, photo, seconds=0.5, clients=12)
        assert found["lost"] == []
        assert set(found["accepted"]) <= {"200", "503"}
        assert sum(found["accepted"].values()) > 0
        assert found["exit_status"] == 0
        assert "Traceback" not in service.said()


def test_difference_names_the_place() -> None:
    assert difference({"a": [1.0, {"b": "x"}], "more": 1}, {"a": [1.003, {"b": "x"}]}) == ""
    assert difference({"a": [1.0, {"b": "x"}]}, {"a": [1.0, {"b": "y"}]}) == "answer.a[1].b is 'x', expected 'y'"
    assert difference({"a": [1.0]}, {"a": [1.01]}) == "answer.a[0] is 1.0, expected 1.01"
    assert difference({"a": [1.0]}, {"a": [1.0, 2.0]}) == "answer.a is [1.0], expected [1.0, 2.0]"
    assert difference({}, {"a": None}) == "answer.a is 'nothing', expected None"
    assert difference("AACAPwAAAEA=", [1.0, 2.0]) == ""
    assert difference(float("nan"), 1.0) == "answer is nan, expected 1.0"


def test_mix_has_a_bad_question_in_twenty_and_all_kinds() -> None:
    good, bad = (
        [Question(kind, b"") for kind in ("recognize", "health")],
        [Question("bad: a", b""), Question("bad: b", b"")],
    )
    found = [question.kind for question in mix(good, bad, 400)]
    assert (found.count("bad: a"), found.count("bad: b")) == (10, 10)
    assert found[19::20] == ["bad: a", "bad: b"] * 10
    assert found == [question.kind for question in mix(good, bad, 400)]
    assert found != [question.kind for question in mix(good, bad, 400, seed=1)]
