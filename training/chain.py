"""Every command of the paper's chain in turn, one of them killed and resumed; what each took and gave.

python -m training.chain training/configs/chain_vit_b_32.toml
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import torch
import typer

from fashion_retrieval.errors import ConfigError
from training.engine.errors import one_line_errors
from training.engine.settings import read_settings
from training.evaluation.results_file import versions, write_results


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One TOML file."""

    commands: list[list[str]]
    """What is run, as arguments of `python -m`."""
    killed: int
    """Which of them, from 0, is killed and run again: a recipe."""
    killed_at: int
    """The step that its log must have reached; checkpoints lie before it."""
    output: str
    """The folder of that recipe, with its log.jsonl."""
    measured: dict[str, list[str]]
    """Figures to report: the results file, and the keys that lead to the figure in it."""
    results: str


@dataclass(frozen=True, slots=True)
class Ran:
    """A command that ended, or was killed.

    Attributes:
        seconds: Of wall clock.
        peak_mb: MiB resident at most.
    """

    seconds: float
    peak_mb: float


def run(arguments: Sequence[str], stop: Callable[[], bool] = lambda: False) -> Ran:
    """Run `python -m` with these arguments to its end or, as soon as `stop` says so, kill it with SIGKILL.

    Raises:
        ConfigError: It failed, with the last line it said.
    """
    began = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", *arguments], stderr=subprocess.PIPE, text=True)
    killed = False
    while True:
        if not killed and stop():
            process.send_signal(signal.SIGKILL)
            killed = True
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        time.sleep(0.2)
    process.returncode = os.waitstatus_to_exitcode(status)
    said = process.stderr.read().strip() if process.stderr else ""
    if process.returncode != (-signal.SIGKILL if killed else 0):
        last = said.splitlines()[-1] if said else "nothing said"
        raise ConfigError(f"python -m {' '.join(arguments)} ended with {process.returncode}: {last}")
    return Ran(time.monotonic() - began, usage.ru_maxrss / 1024)


def chain(settings: Settings) -> dict[str, Any]:
    """Run all; the log of the killed recipe has each step once, and its loss is that of one run."""
    log = Path(settings.output) / "log.jsonl"
    rows, resumed = [], 0
    for number, arguments in enumerate(settings.commands):
        if number == settings.killed:
            ran = run(arguments, lambda: len(_steps(log)) > settings.killed_at)
            rows.append(_row([*arguments, "(killed)"], ran))
            resumed = _checkpoint(Path(settings.output))
        rows.append(_row(arguments, run(arguments)))
    steps = _steps(log)
    quarter = max(1, len(steps) // 4)
    return {
        "versions": versions(),
        "threads": torch.get_num_threads(),
        "training": {
            "steps": len(steps),
            "killed_after_step": settings.killed_at,
            "resumed_from_step": resumed,
            "each_step_once": [row["step"] for row in steps] == list(range(len(steps))),
            "loss_of_the_first_quarter": round(mean(row["loss"] for row in steps[:quarter]), 4),
            "loss_of_the_last_quarter": round(mean(row["loss"] for row in steps[-quarter:]), 4),
            "median_seconds_a_step": sorted(row["seconds"] for row in steps)[len(steps) // 2],
        },
        "figures": {name: _figure(keys) for name, keys in settings.measured.items()},
        "losses": [round(row["loss"], 3) for row in steps],
        "commands": rows,
    }


def _steps(log: Path) -> list[dict[str, float]]:
    lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def _checkpoint(folder: Path) -> int:
    return int(torch.load(folder / "checkpoint.pt", weights_only=True, map_location="cpu")["step"])


def _row(arguments: Sequence[str], ran: Ran) -> dict[str, Any]:
    command = " ".join(["python -m", *arguments])
    return {"command": f"`{command}`", "seconds": round(ran.seconds, 1), "peak_memory_MiB": round(ran.peak_mb)}


def _figure(keys: Sequence[str]) -> float:
    """The number that a results file, keys[0], holds under the others."""
    found: Any = json.loads(Path(keys[0]).read_text(encoding="utf-8"))
    for key in keys[1:]:
        if not isinstance(found, Mapping) or key not in found:
            raise ConfigError(f"{keys[0]} holds no {' / '.join(keys[1:])}; mend `measured`")
        found = found[key]
    return round(float(found), 4)


def main(config: Path) -> None:
    """Run the chain and write what it gave; each command resumes what it can."""
    with one_line_errors():
        settings = read_settings(config, Settings)
        if not 0 <= settings.killed < len(settings.commands):
            raise ConfigError(f"killed must name one of the {len(settings.commands)} commands, got {settings.killed}")
        if Path(settings.output).exists():
            raise ConfigError(f"{settings.output} must not exist yet: the chain starts anew; remove it")
        write_results(chain(settings), Path(settings.results))


if __name__ == "__main__":
    typer.run(main)
