"""Both vector stores for the tests: LanceDB in a temporary folder, and one real Milvus server for the whole session."""

from __future__ import annotations

import atexit
import shutil
import socket
import tempfile
import warnings
from contextlib import ExitStack, closing
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fashion_retrieval.gallery.engines.base import Row, Settings
from fashion_retrieval.gallery.engines.lancedb import LanceStore
from fashion_retrieval.gallery.engines.milvus import MilvusStore
from fashion_retrieval.model import FashionModel
from tests.support.tiny import tiny_folder

DIM = 16
FIELDS = {"category": str, "price": float, "stock": int, "sale": bool, "袖 丈": str}
ENGINES = {"lancedb": LanceStore, "milvus": MilvusStore}
_IMPATIENT = {
    "proxy.timeTickInterval": 20,
    "queryCoord.checkHandoffInterval": 500,
    "queryCoord.checkInterval": 200,
    "queryCoord.distPullInterval": 100,
}
"""How often a Milvus server looks for news, in milliseconds; by default from 200 to 5,000."""
_ETCD = """\
listen-client-urls: http://127.0.0.1:{clients}
advertise-client-urls: http://127.0.0.1:{clients}
listen-peer-urls: http://127.0.0.1:{peers}
initial-advertise-peer-urls: http://127.0.0.1:{peers}
initial-cluster: default=http://127.0.0.1:{peers}
"""
_PATIENCE = 180_000
_numbers = count()


def milvus_address() -> str:
    """http://127.0.0.1:port of a server that ends with the session; where there is none, the test is skipped."""
    address, trouble = _start_milvus()
    if trouble:
        pytest.skip(f"NO MILVUS SERVER, so that engine is not tested here: {trouble}")
    return address


@cache
def _start_milvus() -> tuple[str, str]:
    try:
        import milvus
    except ImportError as error:
        return "", str(error)
    folder = tempfile.mkdtemp(prefix="milvus-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    config = milvus.MilvusServerConfig(data_dir=folder)
    names = [name for name in config.configurable_items if name.endswith("_port")]
    *ports, health, clients, peers = free_ports(3 + len(names))
    config.update(**dict(zip(names, ports, strict=True)))
    for name, milliseconds in _IMPATIENT.items():
        config.set(name, milliseconds)
    config.template_text = config.template_text.replace("queryCoord:\n", "queryCoord:\n  updateNextTargetInterval: 1\n")
    # The etcd within the server takes two ports that are no settings of Milvus: a second server would never start.
    etcd = Path(folder, "etcd.yaml")
    etcd.write_text(_ETCD.format(clients=clients, peers=peers), encoding="utf-8")
    config.template_text = config.template_text.replace("etcd:\n", f"etcd:\n  config:\n    path: {etcd}\n", 1)
    server = milvus.MilvusServer(config, wait_for_started=False)
    server.webservice_port = health
    atexit.register(_stop, server)
    try:
        with warnings.catch_warnings(action="ignore", category=ResourceWarning):  # it leaves sockets to the collector
            server.start()
            server.wait_started(_PATIENCE)
    except (OSError, RuntimeError) as error:
        return "", str(error)
    return f"http://127.0.0.1:{server.listen_port}", ""


def _stop(server: Any) -> None:
    if server.server_proc:
        server.server_proc.kill()
        server.server_proc.wait()
    server.stop()


def free_ports(number: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@cache
def tiny_model() -> FashionModel:
    """A model of 16 numbers an embedding."""
    with tempfile.TemporaryDirectory() as folder:
        return FashionModel.from_pretrained(tiny_folder(Path(folder)), device="cpu", dtype="float32")


def settings() -> Settings:
    """The settings of a gallery of the tiny model with `FIELDS`."""
    names = {name: kind.__name__ for name, kind in FIELDS.items()}
    return Settings("tiny", tiny_model().fingerprint, DIM, None, names, dtype="float32")


def empty_gallery(engine: str, folder: Path) -> str:
    """The URI of a gallery of `settings` without photos; in Milvus, where making one takes seconds, always the same."""
    if engine == "lancedb":
        uri = str(folder / f"gallery{next(_numbers)}")
        LanceStore.create(uri, settings())
        return uri
    uri = f"{milvus_address()}/gallery"
    with closing((MilvusStore.open if MilvusStore.exists(uri) else _create_milvus)(uri)) as opened:
        same = opened.settings == settings()
        if same:
            opened._client.delete("gallery", filter='id >= ""')
        else:  # a test migrated it
            opened._client.drop_collection("gallery")
    if not same:
        _create_milvus(uri).close()
    return uri


def _create_milvus(uri: str) -> MilvusStore:
    return MilvusStore.create(uri, settings())


def clustered(number: int, *, centers: int = 50, seed: int = 0) -> np.ndarray:
    """L2-normalized (N, 16) float32 about random centers, the same for every seed."""
    middles = np.random.default_rng(99).normal(size=(centers, DIM))
    generator = np.random.default_rng(seed)
    points = middles[generator.integers(0, centers, number)] + generator.normal(size=(number, DIM))
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


def rows(vectors: np.ndarray, **columns: list) -> list[Row]:
    """Rows "p00000", "p00001", … with these vectors and the fields' values."""
    given = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    fields = [dict.fromkeys(FIELDS) | values for values in given or [{}] * len(vectors)]
    return [
        Row(f"p{i:05}", vector, f"{i:064x}", None, values)
        for i, (vector, values) in enumerate(zip(vectors, fields, strict=True))
    ]
