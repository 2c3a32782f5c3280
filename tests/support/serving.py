"""The service on a real socket, in a thread of the tests."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any

import uvicorn

from fashion_retrieval.serve.app import create_app
from fashion_retrieval.serve.state import Service


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
