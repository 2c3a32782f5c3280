"""One model for many threads gives what a serial run gives; in a forked process it finishes or raises, never hangs."""

import asyncio
import copy
import os
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier

import numpy as np
import pytest
import torch

from fashion_retrieval import FashionModel
from fashion_retrieval.backends.attach import describe
from fashion_retrieval.errors import UnsupportedError
from tests.support.exported_models import BACKENDS
from tests.support.paths import ROOT
from tests.support.tiny import drawn_photo

THREADS = 32
TEXTS = ["in red", "with long sleeves and a collar, please", "shorter"]
PHOTOS = [drawn_photo((40 + 8 * seed, 64), seed=seed) for seed in range(3)]
BOXES = [[4, 4, 36, 60], [0, 0, 20, 30]]


@pytest.fixture(scope="module")
def everywhere(bundle, folder, converted, tmp_path_factory):
    """A model folder with exports for both runtimes."""
    made = shutil.copytree(folder, tmp_path_factory.mktemp("everywhere"), dirs_exist_ok=True)
    for backend in BACKENDS:
        shutil.copytree(converted[backend], made / backend)
        describe(bundle, made / backend, backend=backend, precision="fp32").write(made / backend)
    return made


@pytest.fixture(params=["torch", *BACKENDS])
def load(request, everywhere):
    """A function that loads the model in a backend, with nothing cached; on more threads than there are cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(2 * (os.cpu_count() or 1))
    yield partial(FashionModel.from_pretrained, everywhere, device="cpu", dtype="float32", backend=request.param)
    torch.set_num_threads(before)


def of(recognition):
    """Its numbers."""
    return [[*garment.box, *(score.probability for score in garment.categories)] for garment in recognition.garments]


def jobs(model):
    """A call of each kind: what it gives as one array."""
    return [
        lambda: of(model.recognize(PHOTOS[0], boxes=BOXES)),
        lambda: model.encode(images=PHOTOS),
        lambda: model.encode(texts=TEXTS),
        lambda: model.compose(PHOTOS, TEXTS),
        lambda: [one.embedding for one in model.encode_iter(PHOTOS, batch_size=2)],
        lambda: of(model.recognize(PHOTOS[1])),
        lambda: model.compose(PHOTOS[2], TEXTS[0], text_weight=0.3),
        lambda: [of(found) for found in model.recognize_many(PHOTOS, segmenter=None)],
    ]


def test_many_threads_and_asyncio_with_mixed_calls_equal_a_serial_run(load):
    expected = [np.array(job()) for job in jobs(load())]
    todo, start = jobs(load()), Barrier(THREADS)

    def work(number):
        start.wait(120)  # all find the caches empty
        return [(place, np.array(todo[place]())) for place in (number % len(todo), (number + 3) % len(todo))]

    async def gathered():
        return await asyncio.gather(*(asyncio.to_thread(job) for job in todo))

    with ThreadPoolExecutor(THREADS) as pool:
        found = [result for results in pool.map(work, range(THREADS)) for result in results]
    assert len(found) == 2 * THREADS
    for place, result in [*found, *enumerate(asyncio.run(gathered()))]:
        np.testing.assert_allclose(np.array(result), expected[place], atol=2e-6)


@pytest.mark.parametrize("move", [pickle.dumps, copy.deepcopy], ids=["pickle", "deepcopy"])
def test_a_model_is_not_pickled_and_says_what_to_do(folder, move):
    with pytest.raises(UnsupportedError, match=r"^a FashionModel can't be pickled; call "):
        move(FashionModel.from_pretrained(folder, device="cpu", dtype="float32"))


PROGRAM = """
import os, signal, sys, threading, warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader

from fashion_retrieval import FashionModel
from fashion_retrieval.errors import UnsupportedError
from tests.support.tiny import drawn_photo


def told(job, threads):
    try:
        torch.set_num_threads(threads)
        return "equal" if np.allclose(job(), expected, atol=2e-6) else "other numbers"
    except UnsupportedError as error:
        return "raises" if str(error).startswith("computing here would hang") else str(error)


def fork(job, threads):
    sys.stdout.flush()
    child = os.fork()
    if not child:
        signal.alarm(60)  # ends a child that hangs, wherever it does
        os._exit(["equal", "raises"].index(told(job, threads)))
    status = os.waitpid(child, 0)[1]
    return "hangs" if os.WIFSIGNALED(status) else ["equal", "raises", "fails"][min(2, os.WEXITSTATUS(status))]


def load(backend):
    return FashionModel.from_pretrained(sys.argv[1], device="cpu", dtype="float32", backend=backend)


def in_a_pool():
    signal.alarm(60)
    return told(lambda: model.encode(images=photos), 2)


class Photos(torch.utils.data.Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, place):
        signal.alarm(60)
        return told(lambda: model.encode(images=photos), torch.get_num_threads())


warnings.simplefilter("ignore")  # of Python 3.12 at a fork beside threads
torch.set_num_threads(2)
photos = [drawn_photo((40 + 8 * seed, 64), seed=seed) for seed in range(8)]
for backend in ("torch", "openvino", "onnx"):
    model = load(backend)
    encode = lambda: model.encode(images=photos)
    expected = encode()
    calls = {
        "encode": encode,
        "texts": lambda: model.encode(texts=["a coat"]),
        "recognize": lambda: model.recognize(photos[0], segmenter=None),
        "compose": lambda: model.compose(photos[0], "in red"),
        "recognizer": lambda: model.recognizer(),
        "load": lambda: load("torch"),
        "save": lambda: model.save_pretrained(Path(sys.argv[1], "saved")),
    }
    for name, call in calls.items():
        print(backend, name, fork(call, 2))
    print(backend, "one thread", fork(encode, 1))
    print(backend, "loaded on one thread", fork(lambda: load(backend).encode(images=photos), 1))
    [[worker]] = DataLoader(Photos(), num_workers=1, multiprocessing_context="fork", timeout=120)
    print(backend, "DataLoader", worker)
    with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:
        print(backend, "pool", pool.submit(in_a_pool).result(120))
    stop = threading.Event()
    other = threading.Thread(target=stop.wait)
    other.start()
    print(backend, "beside a thread", fork(encode, 1))
    stop.set()
    other.join()
    begun = model.encode_iter(photos, batch_size=4)
    first = [next(begun).embedding for _ in range(4)]
    print(backend, "goes on reading", fork(lambda: [*first, *(one.embedding for one in begun)], 1))
    begun.close()
print("parent", told(encode, 2))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system does not fork")
def test_a_forked_process_finishes_or_raises_and_never_hangs(everywhere):
    command = [sys.executable, "-c", PROGRAM, str(everywhere)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    calls = ["encode", "texts", "recognize", "compose", "recognizer", "load", "save"]
    refused = [*calls, "pool", "beside a thread", "goes on reading"]
    alone = ["one thread", "loaded on one thread", "DataLoader"]
    told = {line.rpartition(" ")[0]: line.rpartition(" ")[2] for line in done.stdout.splitlines()}
    assert told == {
        **{f"{backend} {name}": "raises" for backend in ("torch", *BACKENDS) for name in refused},
        **{f"{backend} {name}": "raises" for backend in BACKENDS for name in alone},
        **{f"torch {name}": "equal" for name in alone},
        "parent": "equal",
    }
