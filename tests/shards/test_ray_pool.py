"""Shards by a real Ray cluster of two workers: one is killed, then the driver; nothing is lost or doubled."""

import logging
import os
import signal
import subprocess
import sys
import time
import warnings
from contextlib import contextmanager, suppress
from errno import ENXIO
from pathlib import Path

import numpy as np
import pytest

from fashion_retrieval.errors import ImageError, MissingExtraError, ShardError
from fashion_retrieval.shards import ray_pool
from fashion_retrieval.shards.encode import encode_shards
from fashion_retrieval.shards.files import read_shard
from fashion_retrieval.shards.filesystem import Folder
from fashion_retrieval.shards.manifest import Manifest, Shard, Summary
from tests.support.tiny import drawn_photo, tiny_folder

ray = pytest.importorskip("ray")

NUMBER, SIZE = 24, 4
PATIENCE = 120
MANIFEST = Manifest("fake", "f", 4, "float32", 40, "d", 10, "parquet")


@pytest.fixture(scope="module")
def address():
    """Of a cluster with room for two workers; they are not to wait for whatever else this machine does."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(action="ignore"):
        patch.setenv("RAY_worker_niceness", "0")
        quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}
        started = ray.init(address="local", num_cpus=2, object_store_memory=100_000_000, **quiet)
        yield started.address_info["gcs_address"]
        ray.shutdown()


def shards(number):
    return [Shard(index, 10 * index, ("a",), ("b",)) for index in range(number)]


def test_ray_pool_raises_what_its_workers_raise(address, monkeypatch):
    class Doomed:
        """Shard 1 kills it, shard 4 holds a bad photo."""

        def identity(self):
            return ("fake", "f", 4, "float32")

        def encode(self, shard, manifest):
            if shard.index == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            if shard.index == 4:
                raise ImageError(f"photo {shard.start} of\n{manifest.model_id}")
            return Summary(shard.index, 10, ())

    monkeypatch.setattr(ray_pool, "_RETRIES", 1)
    done = []
    with ray_pool.RayPool(Doomed(), 1, gpus=True) as pool:
        assert pool.identity() == ("fake", "f", 4, "float32")
        with pytest.raises(ShardError, match=r"^shard 1 was given up \(\w+: .+\); look for a photo that breaks its"):
            done += pool.encode_all(shards(4), MANIFEST)
        with pytest.raises(ImageError, match=r"^photo 40 of fake$"):
            done += pool.encode_all(shards(6)[2:], MANIFEST)
    assert [summary.index for summary in done] == [0, 2, 3, 2, 3]
    assert ray.is_initialized()


def test_ray_run_resumes_after_worker_and_driver_are_killed(address, tmp_path):
    model, photos, out = tiny_folder(tmp_path / "model"), tmp_path / "photos", tmp_path / "shards"
    photos.mkdir()
    paths = [photos / f"{index:02}.png" for index in range(NUMBER)]
    for index, path in enumerate(paths):
        drawn_photo((24, 32), seed=index).save(path)
    contents = [path.read_bytes() for path in paths]
    (tmp_path / "list.txt").write_text("".join(f"{path}\n" for path in paths), encoding="utf-8")
    # Whoever reads these two waits for what this test writes: in the middle of the shards 2 and 5.
    early, late = 2 * SIZE + 1, NUMBER - 1
    for index in (early, late):
        paths[index].unlink()
        os.mkfifo(paths[index])
    options = ["--model", model, "--device", "cpu", "--dtype", "float32", "--batch-size", 2, "--shard-size", SIZE]
    command = ["encode", tmp_path / "list.txt", "--out", out, "--engine", "ray", "--workers", 2, *options]
    call = [sys.executable, "-m", "fashion_retrieval.cli", *map(str, command)]
    environment = {**os.environ, "RAY_ADDRESS": address, "PYTHONWARNINGS": "error"}
    with started(call, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as driver:
        with written(paths[early]) as (pipe, worker):
            os.kill(worker, signal.SIGKILL)
            until(lambda: _reader(paths[early]) not in (None, worker))  # a killed process reads for a moment still
            os.write(pipe, contents[early])
        with written(paths[late]):
            until(lambda: len(list(out.glob("shard-*.parquet"))) == 5)
            driver.kill()
            assert driver.communicate() == ("", None)
    for index in (early, late):
        paths[index].unlink()
        paths[index].write_bytes(contents[index])
    settings = {"model": model, "loading": {"device": "cpu", "dtype": "float32"}, "batch_size": 2, "shard_size": SIZE}
    resumed = encode_shards(tmp_path / "list.txt", out, **settings)
    straight = encode_shards(tmp_path / "list.txt", tmp_path / "straight", **settings)
    assert (resumed.kept, resumed.encoded, resumed.shards) == (5, NUMBER, 6)
    assert (straight.kept, straight.encoded) == (0, NUMBER)
    got, expected = tables(out), tables(tmp_path / "straight")
    assert [name for table in got for name in table["id"].to_pylist()] == list(map(str, paths))
    for one, other in zip(got, expected, strict=True):
        assert one.drop("embedding") == other.drop("embedding")
        embeddings, wanted = (np.array(table["embedding"].to_pylist()) for table in (one, other))
        assert np.abs(embeddings - wanted).max() < 1e-6


@pytest.mark.parametrize(
    ("nodes", "workers", "expected"),
    [
        ([{"CPU": 2.0}], None, (1, 2, 0)),
        ([{"CPU": 2.0}], 2, (2, 1, 0)),
        ([{"CPU": 2.0}], 5, (5, 1, 0)),
        ([{"CPU": 64.0}, {"CPU": 10.0}, {"memory": 1.0}], None, (18, 4, 0)),
        ([{"CPU": 64.0}, {"CPU": 2.0}], 3, (3, 2, 0)),
        ([{"CPU": 64.0, "GPU": 8.0}, {"CPU": 32.0, "GPU": 4.0}, {"CPU": 8.0}], None, (12, 8, 1)),
        ([{"CPU": 64.0, "GPU": 8.0}], 2, (2, 32, 1)),
        ([], None, (1, 1, 0)),
    ],
)
def test_divide_gives_workers_their_resources(nodes, workers, expected):
    assert ray_pool.divide(nodes, workers, gpus=True) == expected


def test_divide_without_gpus_leaves_them_alone():
    assert ray_pool.divide([{"CPU": 8.0, "GPU": 1.0}], None, gpus=False) == (2, 4, 0)


def test_encode_shards_without_ray_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"^engine 'ray' needs Ray; pip install 'fashion-retrieval\[bulk\]'$"):
        encode_shards("photo.jpg", tmp_path / "shards", engine="ray")


@contextmanager
def started(call, **options):
    with subprocess.Popen(call, **options) as process:
        try:
            yield process
        finally:
            process.kill()
            if not process.stdout.closed:
                print(process.stdout.read())  # which pytest shows where the test failed


@contextmanager
def written(path):
    """The writing end of a pipe, and the process that reads from it."""
    pipe = until(lambda: _open(path))
    try:
        yield pipe, until(lambda: _reader(path))
    finally:
        os.close(pipe)


def until(look):
    """What `look` finds, as soon as it finds anything."""
    end = time.monotonic() + PATIENCE
    while not (found := look()):
        if time.monotonic() > end:
            pytest.fail(f"nothing came in {PATIENCE} s")
        time.sleep(0.02)
    return found


def _open(path):
    try:
        return os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno != ENXIO:  # nobody reads
            raise
        return None


def _reader(path):
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if process.name != str(os.getpid()) and path in map(Path.readlink, (process / "fd").iterdir()):
                return int(process.name)
    return None


def tables(folder):
    place = Folder(str(folder))
    manifest = Manifest.read(place)
    return [read_shard(place, manifest, index) for index in range(manifest.shards)]
