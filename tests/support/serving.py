"""The service on a real socket, in a thread of the tests."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import uvicorn

from benchmarks.serve.bad import problem_of
from benchmarks.serve.client import Answer
from fashion_retrieval import FashionModel, Gallery
from fashion_retrieval.serve.app import create_app
from fashion_retrieval.serve.engine import Engine
from fashion_retrieval.serve.state import Service
from tests.support.exported import trained_composer, trained_encoder


@contextmanager
def tiny_shop(root: Path, photo: bytes, *, max_pixels: int) -> Iterator[Service]:
    """A writable service of a tiny model, with a gallery "shop" of the one photo "a"."""
    folder = trained_composer(root / "model", trained_encoder(root / "encoder"))
    model = FashionModel.from_pretrained(folder, device="cpu", dtype="float32")
    (root / "a.jpg").write_bytes(photo)
    engine = Engine(model, max_pixels=max_pixels)
    with Gallery.create(root / "gallery", model, fields={"category": str}) as gallery:
        gallery.add([root / "a.jpg"], ["a"])
        yield Service(engine, {"shop": gallery}, uploads={"shop": root / "gallery/photos"})
    engine.close()


def check_problem(answer: Answer, status: int) -> str:
    """Hold an answer to be a problem document of this status; returns its line."""
    assert answer.status == status, answer
    assert problem_of(status, dict(answer.headers), answer.body) == ""
    return str(answer.json()["detail"])


@contextmanager
def running(service: Service, **options: Any) -> Iterator[int]:
    """The service in a thread; gives its port."""
    config = uvicorn.Config(create_app(service, **options), lifespan="off", log_level="critical")
    server = uvicorn.Server(config)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        thread = Thread(target=server.run, kwargs={"sockets": [taken]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield taken.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()
