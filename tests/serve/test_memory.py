"""What a request held is freed with its answer, and does not wait for Python's collector."""

from __future__ import annotations

import base64
import gc
import time
import warnings
from collections.abc import Iterator

import pytest

from benchmarks.serve.bad import EMBEDDINGS, RECOGNIZE
from benchmarks.serve.client import ask, form_request, json_request
from fashion_retrieval.serve.engine import Engine, _Job
from fashion_retrieval.serve.requests import Upload
from fashion_retrieval.serve.state import Service
from tests.serve.conftest import photo_file
from tests.support.galleries import tiny_model
from tests.support.serving import running

PHOTO, JUNK = photo_file(1, kind="JPEG"), bytes(200_000)
FORM = form_request(RECOGNIZE, [("photos", "a.jpg", PHOTO)])
REQUESTS = {
    "good form": (200, FORM),
    "good JSON": (200, json_request(RECOGNIZE, {"photos": [base64.b64encode(PHOTO).decode()]})),
    "embedding": (200, json_request(EMBEDDINGS, {"input": {"image": base64.b64encode(PHOTO).decode()}})),
    "no photo": (422, form_request(RECOGNIZE, [("photos", "a.jpg", JUNK)])),
    "no photo in JSON": (422, json_request(EMBEDDINGS, {"input": {"image": base64.b64encode(JUNK).decode()}})),
    "another field": (422, form_request(RECOGNIZE, [("photo", "a.jpg", PHOTO)])),
    "twice": (400, form_request(EMBEDDINGS, [("input", "a.jpg", PHOTO), ("input", "b.jpg", PHOTO)])),
}


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    engine = Engine(tiny_model())
    with running(Service(engine)) as number:
        yield number
    engine.close()


@pytest.mark.parametrize("name", REQUESTS)
def test_answered_request_leaves_no_photo(port: int, name: str) -> None:
    status, content = REQUESTS[name]
    assert ask(port, content).status == status
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            assert ask(port, content).status == status
        until = time.monotonic() + 5
        while (left := held()) and time.monotonic() < until:
            time.sleep(0.05)
        assert left == 0
    finally:
        gc.enable()


def held() -> int:
    """How many uploads, and jobs with a photo, there are in memory."""
    with warnings.catch_warnings(action="ignore"):  # torch warns of an old name that is looked at
        found = gc.get_objects()
        return sum(isinstance(one, Upload) or (isinstance(one, _Job) and one.item is not None) for one in found)
