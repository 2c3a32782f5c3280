"""The OpenAPI page: schemathesis asks what the page allows and what it forbids, and all its checks hold."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fashion_retrieval import FashionModel, Gallery
from fashion_retrieval.serve.app import create_app
from fashion_retrieval.serve.engine import Engine
from fashion_retrieval.serve.state import Service
from tests.serve.conftest import HERE, photo_file
from tests.support.exported import trained_composer, trained_encoder

schemathesis = pytest.importorskip("schemathesis", reason="NO SCHEMATHESIS, so the OpenAPI page is not tested here")

EXAMPLES = 2
"""Drawn for each route; hundreds were by hand."""
ACCEPTED = ["2xx", "401", "404"]
UNSAID = ["POST /v1/recognize", "POST /v1/galleries/{name}/search", "POST /v1/galleries/{name}/photos"]
"""What these take JSON Schema can't say all of: a filter, a taxonomy, as many ids as photos; 422 is right too."""


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    folder = trained_composer(tmp_path / "model", trained_encoder(tmp_path / "encoder"))
    model = FashionModel.from_pretrained(folder, device="cpu", dtype="float32")
    paths = [tmp_path / f"{number}.png" for number in range(4)]
    for number, path in enumerate(paths):
        path.write_bytes(photo_file(number))
    engine = Engine(model)
    with Gallery.create(tmp_path / "gallery", model, fields={"category": str, "color": str, "price": int}) as gallery:
        gallery.add(paths, [f"shirt-{n}" for n in range(4)], [{"price": 10 * n} for n in range(4)])
        yield Service(engine, {"shop": gallery}, uploads={"shop": tmp_path / "gallery/photos"})
    engine.close()


def faults(service: Service, examples: int, *, seed: int = 0) -> tuple[int, list[str]]:
    """How many requests were made, with how many drawn for each route, and what failed."""
    from hypothesis import strategies as st

    photos = [photo_file(number, kind=kind) for number, kind in enumerate(("PNG", "JPEG"))]
    schemathesis.openapi.format("byte", st.sampled_from([base64.b64encode(photo).decode() for photo in photos]))
    schemathesis.openapi.format("binary", st.sampled_from(photos))
    strict: dict[str, Any] = {"expected-statuses": ACCEPTED}
    lenient: dict[str, Any] = {"expected-statuses": [*ACCEPTED, "422"]}
    config = schemathesis.Config.from_dict(
        {
            "seed": seed,
            "base-url": HERE,
            "continue-on-failure": True,
            "generation": {"max-examples": examples, "deterministic": True, "no-shrink": True, "database": "none"},
            "checks": {"enabled": True, "positive_data_acceptance": strict},
            "operations": [{"include-name": name, "checks": {"positive_data_acceptance": lenient}} for name in UNSAID],
        }
    )
    here = {"Host": "127.0.0.1"}
    schema = schemathesis.openapi.from_asgi("/openapi.json", create_app(service), config=config, headers=here)
    asked, found = 0, []
    for event in schemathesis.engine.from_schema(schema).execute():
        if type(event).__name__ in ("NonFatalError", "FatalError"):
            found.append(repr(event))
        for name, checks in event.recorder.checks.items() if type(event).__name__ == "ScenarioFinished" else ():
            asked += 1
            found += [told(event.recorder, name, check) for check in checks if check.failure_info]
    return asked, found


def told(recorder: Any, name: str, check: Any) -> str:
    """A failed check in a line: what failed, the request, the answer."""
    case, response = recorder.cases[name].value, recorder.interactions[name].response
    sent = f"{case.method} {case.path} {case.media_type} {case.path_parameters} {case.query} {case.body}"
    answer = f"{response.status_code} {response.content[:300]!r}" if response else "no answer"
    return f"{check.name}: {check.failure_info.failure.title}: {sent:.500} -> {answer}"


def test_page_holds_what_it_says(service: Service) -> None:
    asked, found = faults(service, EXAMPLES)
    assert asked > 500
    assert not found, "\n".join(found)
