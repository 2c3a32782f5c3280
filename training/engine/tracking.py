"""Where the metrics of a run go: always a plain JSONL file, and TensorBoard or Weights & Biases beside it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

from fashion_retrieval._utils.optional import imported
from training.engine.files import write_text

Tracker = Literal["tensorboard", "wandb"]
LOG = "log.jsonl"
Sink = Callable[[int, Mapping[str, float]], None]
"""Takes a step, from 0, and its metrics."""


@contextmanager
def track(folder: Path, names: Sequence[Tracker], start: int, config: Mapping[str, Any]) -> Iterator[Sink]:
    """Open the log of a run in its folder and the trackers named, and close them at the end, an error's too.

    `start` is the step that a resumed run goes on with; lines of later steps, past the checkpoint, are dropped.
    """
    openers = {"tensorboard": _tensorboard, "wandb": _wandb}
    with ExitStack() as stack:
        sinks = [stack.enter_context(openers[name](folder, start, config)) for name in names]
        sinks.insert(0, stack.enter_context(_jsonl(folder, start)))

        def write(step: int, metrics: Mapping[str, float]) -> None:
            for sink in sinks:
                sink(step, metrics)

        yield write


@contextmanager
def _jsonl(folder: Path, start: int) -> Iterator[Sink]:
    path = folder / LOG
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines()
        kept = "".join(line + "\n" for line in lines if (step := _step_of(line)) is not None and step < start)
        write_text(path, kept)
    with path.open("a", encoding="utf-8") as file:

        def write(step: int, metrics: Mapping[str, float]) -> None:
            file.write(json.dumps({"step": step, **metrics}) + "\n")
            file.flush()

        yield write


def _step_of(line: str) -> int | None:
    """The step of a line, or None if a kill cut it off."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return None


@contextmanager
def _tensorboard(folder: Path, start: int, config: Mapping[str, Any]) -> Iterator[Sink]:
    tensorboard = imported("torch.utils.tensorboard", "tracking")
    with tensorboard.SummaryWriter(str(folder / "tensorboard"), purge_step=start) as writer:
        writer.add_text("config", f"```json\n{json.dumps(config, indent=2, default=str)}\n```", start)

        def write(step: int, metrics: Mapping[str, float]) -> None:
            for name, value in metrics.items():
                writer.add_scalar(name, value, step)

        yield write


@contextmanager
def _wandb(folder: Path, start: int, config: Mapping[str, Any]) -> Iterator[Sink]:
    """A run named by its folder, so that the same command goes on with it.

    The service takes no step twice: steps that a resumed run repeats keep their first metrics, which are the same.
    """
    wandb = imported("wandb", "tracking")
    name = folder.resolve().name
    id_file = folder / "wandb_id.txt"
    if not id_file.exists():
        id_file.write_text(f"{name}-{time.time_ns():x}", encoding="utf-8")
    run_id = id_file.read_text(encoding="utf-8")
    how = {"project": "fashion-retrieval", "name": name, "id": run_id, "dir": str(folder), "resume": "allow"}
    with wandb.init(config=dict(config), **how) as run:

        def write(step: int, metrics: Mapping[str, float]) -> None:
            run.log(dict(metrics), step=step)

        yield write
