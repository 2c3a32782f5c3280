"""The guide's blocks are run against a service: curl by bash, Python, and JavaScript by Node."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest
import uvicorn

from fashion_retrieval import FashionModel, Gallery
from fashion_retrieval.serve.app import create_app
from fashion_retrieval.serve.engine import Engine
from fashion_retrieval.serve.state import Service
from tests.serve.conftest import photo_file
from tests.support.paths import ROOT

BLOCKS = re.findall(
    r"^```(bash|python|javascript)\n(.*?)^```$", (ROOT / "docs/guides/serve.md").read_text(), re.M | re.S
)
ASKING = [(language, code) for language, code in BLOCKS if "http://127.0.0.1:8000/" in code or "httpx" in code]


@pytest.fixture(scope="module")
def address(model: FashionModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service with a gallery named shop, in a thread."""
    folder = tmp_path_factory.mktemp("shop")
    paths = [folder / f"{number}.png" for number in range(4)]
    for number, path in enumerate(paths):
        path.write_bytes(photo_file(number))
    with (
        Gallery.create(folder / "gallery", model, recognize=True) as gallery,
        socket.create_server(("127.0.0.1", 0)) as taken,
    ):
        gallery.add(paths)
        service = Service(Engine(model), {"shop": gallery}, uploads={"shop": folder / "uploads"})
        server = uvicorn.Server(uvicorn.Config(create_app(service), log_config=None))
        thread = Thread(target=server.run, kwargs={"sockets": [taken]})
        thread.start()
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"
        server.should_exit = True
        thread.join(60)


def test_the_guide_has_a_block_of_each_kind() -> None:
    assert sorted({language for language, _ in ASKING}) == ["bash", "javascript", "python"]
    assert len(ASKING) == 5


@pytest.mark.parametrize(
    ("language", "code"), ASKING, ids=[f"{n}-{language}" for n, (language, _) in enumerate(ASKING)]
)
def test_blocks_run(language: str, code: str, address: str, tmp_path: Path) -> None:
    runner = {"bash": "bash", "python": "python", "javascript": "node"}[language]
    for needed in (runner, "curl") if language == "bash" else (runner,):
        if not shutil.which(needed):
            pytest.skip(f"{needed} is not installed, so the guide's {language} block is not run")
    shutil.copy(ROOT / "examples/grace_hopper.jpg", tmp_path / "photo.jpg")
    script = tmp_path / {"bash": "block.sh", "python": "block.py", "javascript": "block.mjs"}[language]
    failing = code.replace("curl ", "curl -sS --fail-with-body ")
    script.write_text(("set -e\n" if language == "bash" else "") + failing.replace("http://127.0.0.1:8000", address))
    environment = {**os.environ, "no_proxy": "*"}
    done = subprocess.run([runner, script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr + done.stdout
    shown = {
        "/v1/recognize": '"garments":[{',
        "/v1/embeddings": "cosine ",
        "/search": "0.",
        "DELETE": '{"deleted":1}',
    }
    (expected,) = [text for part, text in shown.items() if part in code]
    assert expected in done.stdout
