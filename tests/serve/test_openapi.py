"""The OpenAPI page: schemathesis asks what the page allows and what it forbids, and all its checks hold."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from fashion_retrieval import Gallery
from fashion_retrieval.serve.app import create_app
from fashion_retrieval.serve.engine import Engine
from fashion_retrieval.serve.state import Service
from tests.serve.conftest import HERE, photo_file
from tests.support.galleries import tiny_model

schemathesis = pytest.importorskip("schemathesis", reason="NO SCHEMATHESIS, so the OpenAPI page is not tested here")
EXAMPLES = 3
"""A route and phase; by hand some hundreds were asked."""


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    model = tiny_model()
    model.model_id = "compact"
    paths = [tmp_path / f"{number}.png" for number in range(4)]
    for number, path in enumerate(paths):
        path.write_bytes(photo_file(number))
    engine = Engine(model)
    with Gallery.create(tmp_path / "gallery", model, fields={"category": str, "color": str, "price": int}) as gallery:
        gallery.add(paths, [f"shirt/{n}" for n in range(4)], [{"price": 10 * n} for n in range(4)])
        yield Service(engine, {"shop": gallery}, uploads={"shop": tmp_path / "gallery/photos"})
    engine.close()


def faults(service: Service, examples: int, seed: int = 0) -> tuple[int, list[str]]:
    """How many requests were made, and what failed."""
    from hypothesis import strategies as st

    photos = [photo_file(number, kind=kind) for number, kind in enumerate(("PNG", "JPEG"))]
    schemathesis.openapi.format("byte", st.sampled_from([base64.b64encode(photo).decode() for photo in photos]))
    schemathesis.openapi.format("binary", st.sampled_from(photos).map(schemathesis.serializer.Binary) if hasattr(schemathesis.serializer, "Binary") else st.sampled_from(photos))
    config = schemathesis.Config.from_dict(
        {
            "seed": seed,
            "generation": {"max-examples": examples, "deterministic": True, "no-shrink": True},
            "checks": {"enabled": True},
            "continue-on-failure": True,
            "base-url": HERE,
        }
    )
    schema = schemathesis.openapi.from_asgi("/openapi.json", create_app(service), config=config, headers={"Host": "127.0.0.1"})
    asked, found = 0, []
    for event in schemathesis.engine.from_schema(schema).execute():
        name = type(event).__name__
        if name == "ScenarioFinished":
            for case, checks in event.recorder.checks.items():
                asked += 1
                for check in checks:
                    if check.failure_info is not None:
                        r = event.recorder.interactions[case].response
                        c = event.recorder.cases[case].value
                        found.append(f"{event.phase.value} {event.label}: {check.name} | {check.failure_info.failure.title} | {r and r.status_code} {r and r.content[:300]} | {c.method} {c.media_type} {str(c.path_parameters)[:100]} {str(c.query)[:100]} {str(c.body)[:600]}")
        elif name in ("NonFatalError", "FatalError"):
            found.append(f"{name}: {event!r}")
    return asked, found


def test_all(service: Service) -> None:
    import time
    t = time.time()
    asked, found = faults(service, EXAMPLES)
    print(asked, len(found), time.time() - t)
    for one in found:
        print("-----", one[:1500])
