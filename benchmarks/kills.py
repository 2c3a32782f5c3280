"""Processes that are killed while they write to a gallery: is anything lost, doubled or unreadable afterwards?

    python -m benchmarks.kills --engine lancedb --rounds 200 --out benchmarks/results/kills_lancedb.json
    python -m benchmarks.kills --engine milvus --uri http://localhost:19530/kills --rounds 40

A child adds, deletes, optimizes and migrates at random, between the embedded model in float32 and in bfloat16, and
writes a journal: what it begins, what is done. It kills itself (SIGKILL) a random time after it entered a random call
of the vector store. Then another child opens the gallery and compares all rows with the journal: of the operation that
was cut off, all is done or nothing; after a migration, repeating it must end it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import random
import signal
import tempfile
import threading
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from fashion_retrieval import FashionModel, Gallery
from fashion_retrieval._utils.files import write_atomically

PHOTOS, IDS = 24, 16
OPERATIONS = {"add": 3, "delete": 2, "optimize": 2, "migrate": 3}
"""How often each is done."""
CALLS = ("write", "remove", "optimize", "staged", "adopt", "unstage")
"""Methods of a vector store that write."""
DELAYS = {"lancedb": 0.015, "milvus": 0.3}
"""The most seconds from the start of a call to the kill: about what a call takes."""
DTYPES = ("float32", "bfloat16")
CLOSE = {"float32": 1e-3, "bfloat16": 5e-2}
OUTSIDE = "outside a write"
State = dict[str, int]
"""The photo's number by id."""


class Bench:
    """Photos, both models, and what each photo's embedding is."""

    def __init__(self, folder: Path, engine: str, uri: str) -> None:
        import lancedb  # noqa: F401  # once for all children, which are forked

        torch.set_num_threads(1)
        self.engine, self.uri, self.journal = engine, uri, folder / "journal"
        self.paths = [folder / f"{number:02}.png" for number in range(PHOTOS)]
        for number, path in enumerate(self.paths):
            pixels = np.random.default_rng(number).integers(0, 256, (4, 4, 3), np.uint8)
            Image.fromarray(pixels).resize((48, 48), Image.Resampling.NEAREST).save(path)
        torch.set_num_threads(1)  # with more, torch can't compute in a forked process
        loading: dict[str, Any] = {"device": "cpu", "backend": "torch"}
        self.models = {dtype: FashionModel.from_pretrained(dtype=dtype, **loading) for dtype in DTYPES}
        self.left = 0  # calls until the kill; 0 is not yet
        self.vectors: dict[str, NDArray[np.float32]] = {
            dtype: model.encode(images=self.paths) for dtype, model in self.models.items()
        }

    def note(self, line: str) -> None:
        """Add a line to the journal; a kill afterwards does not take it back."""
        file = os.open(self.journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, f"{line}\n".encode())
        os.close(file)

    def work(self, seed: int, state: State, dtype: str) -> None:
        """Operate at random until the kill."""
        chance = random.Random(seed)
        with Gallery.open(self.uri, self.models[dtype]) as gallery:
            self._arm(type(gallery._store), chance.uniform(0, DELAYS[self.engine]))
            fatal = chance.randint(0, 4)
            for operation in itertools.count():
                (name,) = chance.choices(list(OPERATIONS), list(OPERATIONS.values()))
                if operation == fatal:
                    self.left = chance.randint(1, 12) if name == "migrate" else 1
                ids = chance.sample(range(IDS), chance.randint(1, 4))
                numbers = [chance.randrange(PHOTOS) for _ in ids]
                names = [f"id{number}" for number in ids]
                if name == "add":
                    after = state | dict(zip(names, numbers, strict=True))
                elif name == "delete":
                    after = {key: value for key, value in state.items() if key not in names}
                else:
                    after = state
                target = DTYPES[dtype == DTYPES[0]] if name == "migrate" else dtype
                self.note(json.dumps({"begin": name, "state": after, "dtype": target}))
                if name == "add":
                    gallery.add([self.paths[number] for number in numbers], names)
                elif name == "delete":
                    gallery.delete(names)
                elif name == "optimize":
                    gallery.optimize()
                else:
                    gallery.migrate(self.models[target], batch_size=4)
                self.note(json.dumps({"done": name}))
                state, dtype = after, target

    def _arm(self, kind: type, delay: float) -> None:
        """Note the calls of a vector store, and kill this process so many seconds after one begins."""

        def noted(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
            @wraps(call)
            def noting(*given: Any) -> Any:  # noqa: ANN401  # whatever the call takes and gives
                self.note(json.dumps({"call": name}))
                if self.left:
                    self.left -= 1
                    if not self.left:
                        threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
                result = call(*given)
                self.note(json.dumps({"returned": name}))
                return result

            return noting

        for name in CALLS:
            setattr(kind, name, noted(name, getattr(kind, name)))

    def check(self, wanted: list[tuple[State, str]], cut: str | None, answer: Any) -> None:  # noqa: ANN401  # a pipe
        """Send what is wrong with the gallery, which must be as one of `wanted` says, and which one."""
        faults = Counter[str]()
        try:
            found, state, dtype = self._compare(wanted, faults)
            if cut == "migrate":
                dtype = wanted[-1][1]
                with Gallery.open(self.uri, None) as gallery:
                    gallery.migrate(self.models[dtype], batch_size=4)
                self._compare([(state, dtype)], faults)
            answer.send((dict(faults), found, state, dtype))
        except Exception as error:  # whatever makes a gallery unreadable is what is counted
            answer.send(({"unreadable": 1, f"error: {error!s:.200}": 1}, 0, *wanted[0]))

    def _compare(self, wanted: list[tuple[State, str]], faults: Counter[str]) -> tuple[int, State, str]:
        info = Gallery.peek(self.uri)
        dtype = info.dtype or ""
        with Gallery.open(self.uri, self.models[dtype]) as gallery:
            rows = [row for batch in gallery._store.scan() for row in batch]
            vectors, known = np.stack([self.vectors[name] for name in DTYPES]), list(DTYPES)
            state: State = {}
            for row in rows:
                faults["doubled"] += row.id in state
                away = np.abs(vectors - row.vector).max(axis=2)
                number = int(away[known.index(dtype)].argmin())
                faults["wrong vector"] += bool(away[known.index(dtype), number] > CLOSE[dtype])
                if dtype == "bfloat16":
                    faults["of the other model"] += bool(away[0, number] < 1e-6)
                faults["wrong path"] += row.photo != str(self.paths[number])
                state[row.id] = number
            faults["count"] += len(gallery) != len(state)
            searched = gallery.search(self.models[dtype].encode(images=self.paths[0]), 2 * IDS)
            faults["not found"] += {match.id for match in searched} != state.keys()
        for index, (one, expected) in enumerate(wanted):
            if (state, dtype) == (one, expected):
                return index, state, dtype
        faults["lost"] += len(wanted[0][0].keys() & wanted[-1][0].keys() - state.keys())
        faults["other than before or after"] += 1
        return 0, state, dtype


def run(engine: str, rounds: int, uri: str, folder: Path) -> dict[str, Any]:
    """Kill so many processes, one after the other, and count what went wrong."""
    bench = Bench(folder, engine, uri)
    fork = multiprocessing.get_context("fork")

    def create() -> None:
        Gallery.create(uri, bench.models["float32"]).close()

    def elsewhere(work: Callable[..., None], *given: Any) -> int | None:  # noqa: ANN401  # the work's arguments
        process = fork.Process(target=work, args=given)
        with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # LanceDB's of forks: nothing runs yet
            process.start()
        process.join()
        return process.exitcode

    if elsewhere(create):
        raise SystemExit(f"no gallery could be made at {uri}")
    state, dtype = dict[str, int](), DTYPES[0]
    faults, operations, calls = Counter[str](), Counter[str](), Counter[str]()
    kept = 0
    for seed in range(rounds):
        bench.journal.unlink(missing_ok=True)
        code = elsewhere(bench.work, seed, state, dtype)
        lines = [json.loads(line) for line in bench.journal.read_text().splitlines()] if bench.journal.exists() else []
        faults["not killed"] += code != -signal.SIGKILL
        begun = [line for line in lines if "begin" in line]
        done = sum("done" in line for line in lines)
        before = (begun[done - 1]["state"], begun[done - 1]["dtype"]) if done else (state, dtype)
        cut = begun[done] if len(begun) > done else None
        wanted = [before, (cut["state"], cut["dtype"])] if cut else [before]
        operations[cut["begin"] if cut else "between"] += 1
        inside: list[str] = []
        for line in lines:
            if "call" in line:
                inside.append(line["call"])
            elif "returned" in line:
                inside.pop()
        calls[" in ".join(reversed(inside)) or OUTSIDE] += 1
        receiving, sending = fork.Pipe(duplex=False)
        with closing(receiving):
            failed = elsewhere(bench.check, wanted, cut and cut["begin"], sending)
            sending.close()
            wrong, found, state, dtype = ({"unreadable": 1}, 0, *before) if failed else receiving.recv()
        faults.update(wrong)
        kept += found
        wrong = {name: number for name, number in wrong.items() if number}
        print(seed, cut["begin"] if cut else "between", inside, "done" if found else "", wrong or "", flush=True)
    return {
        "engine": engine,
        "kills": rounds,
        "in the middle of a write": rounds - calls[OUTSIDE],
        "calls cut off": dict(calls.most_common()),
        "operations cut off": dict(operations.most_common()),
        "cut off, and yet done": kept,
        "faults": {name: number for name, number in faults.items() if number},
        "lost, doubled or unreadable": sum(faults[name] for name in ("lost", "doubled", "unreadable")),
    }


def main() -> None:
    """Read the command line, kill, write JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--engine", choices=sorted(DELAYS), default="lancedb")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--uri", help="an empty place; for LanceDB by default a temporary folder")
    parser.add_argument("--out", type=Path, help="a JSON file; by default only stdout")
    options = parser.parse_args()
    if options.engine == "milvus" and not options.uri:
        parser.error("--engine milvus needs --uri http://host:port/collection")
    with tempfile.TemporaryDirectory() as folder:
        report = run(options.engine, options.rounds, options.uri or f"{folder}/gallery", Path(folder))
    print(json.dumps(report, indent=2))
    if options.out:
        with write_atomically(options.out) as partial:
            partial.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
