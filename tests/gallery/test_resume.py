"""A process is killed while it adds photos; the same command goes on, and no photo is lost or doubled."""

import signal
import subprocess
import sys

import numpy as np
import pytest

from fashion_retrieval.gallery.gallery import AddReport, Gallery
from tests.support.galleries import ENGINES, FIELDS, empty_gallery, tiny_model
from tests.support.tiny import drawn_photo, tiny_folder

NUMBER = 120
KILLED_AT = 70
ADD = """
import os, signal, sys, threading, time
from pathlib import Path
from fashion_retrieval.gallery import Gallery
from fashion_retrieval.model import FashionModel

folder, killed_at = sys.argv[1:]
model = FashionModel.from_pretrained(Path(folder) / "model", device="cpu", dtype="float32")
paths = sorted((Path(folder) / "photos").iterdir())

def doomed(paths):
    for index, path in enumerate(paths):
        if index == int(killed_at):
            threading.Timer(0.03, os.kill, (os.getpid(), signal.SIGKILL)).start()
        if index == len(paths) - 4:
            time.sleep(60)
        yield path

with Gallery.open(input(), model) as gallery:
    gallery.add(doomed(paths), batch_size=4)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resume")
    tiny_folder(folder / "model")
    (folder / "photos").mkdir()
    for index in range(NUMBER):
        drawn_photo((24, 32), seed=index).save(folder / "photos" / f"{index:03}.png")
    return folder


@pytest.fixture(scope="module")
def children(folder):
    """A process for each engine, which loads its model and then adds to the gallery it is told."""
    command = [sys.executable, "-c", ADD, str(folder), str(KILLED_AT)]
    started = {engine: subprocess.Popen(command, stdin=subprocess.PIPE, text=True) for engine in ENGINES}
    yield started
    for child in started.values():
        child.kill()
        child.communicate()


@pytest.mark.parametrize("engine", ENGINES)
def test_add_after_a_kill_resumes(engine, children, folder):
    uri, child = empty_gallery(engine, folder), children[engine]
    child.communicate(uri)
    assert child.returncode == -signal.SIGKILL
    model, paths = tiny_model(), sorted((folder / "photos").iterdir())
    with Gallery.create(uri, model, fields=FIELDS, exist_ok=True) as gallery:
        kept = len(gallery)
        # The batch of photo 70 was not complete when its end was set; what came before it was written.
        assert KILLED_AT - 2 <= kept < NUMBER
        assert gallery.add(paths, batch_size=4) == AddReport(NUMBER - kept, 0, kept)
        assert len(gallery) == NUMBER
        rows = gallery._store.read([str(path) for path in paths])
        assert list(map(str, paths)) == sorted(rows)
        vectors = np.stack([rows[str(path)].vector for path in paths])
        assert np.abs(vectors - model.encode(images=paths)).max() < 1e-6
        found = gallery.search(vectors[0], NUMBER + 50)
        assert sorted(match.id for match in found) == sorted(rows)
