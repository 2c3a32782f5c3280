"""What every recipe shares: settings, seeds, the schedule, atomic checkpoints and a loop that resumes exactly.

All randomness of a step is drawn from `generator(seed, step)`, so a resumed run equals a straight one.
"""

from __future__ import annotations

import json
import math
import os
import time
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn

from fashion_retrieval.errors import ConfigError

Settings = TypeVar("Settings")
LossFn = Callable[[torch.Generator, int], tuple[Tensor, dict[str, float]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimisation:
    """AdamW with linear warm-up and a cosine schedule."""

    steps: int
    lr: float
    warmup: int = 0
    weight_decay: float = 0.2
    beta1: float = 0.9
    beta2: float = 0.98
    eps: float = 1e-6
    accumulate: int = 1
    clip_norm: float = 1.0
    amp: str = "off"
    ema: float = 0.0
    checkpoint_every: int = 200
    seed: int = 0


def read_settings(path: Path, schema: type[Settings]) -> Settings:
    """Read a TOML file into a dataclass; nested dataclasses are tables. All faults come in one message."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"config {path} can't be read: {error}") from error
    return from_mapping(data, schema, str(path))


def from_mapping(data: Mapping[str, Any], schema: type[Settings], where: str) -> Settings:
    """Build a settings dataclass from a mapping, unknown and missing keys rejected."""
    known = {field.name: field for field in fields(schema)}  # type: ignore[arg-type]  # every schema is a dataclass
    unknown = sorted(set(data) - set(known))
    if unknown:
        raise ConfigError(f"{where} has unknown keys {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    kinds = get_type_hints(schema)
    values = {
        key: from_mapping(value, kinds[key], f"{where} [{key}]")
        if isinstance(value, Mapping) and is_dataclass(kinds[key])
        else value
        for key, value in data.items()
    }
    try:
        return schema(**values)
    except TypeError as error:
        raise ConfigError(f"{where}: {error}") from error


def generator(seed: int, *counters: int) -> torch.Generator:
    """A generator that depends on the seed and the counters alone (step, micro-batch …)."""
    mixed = seed
    for counter in counters:
        mixed = (mixed * 1_000_003 + counter + 1) % (2**63 - 1)
    return torch.Generator().manual_seed(mixed)


def cosine_lr(step: int, optimisation: Optimisation) -> float:
    """Learning rate of a step: linear warm-up to `lr`, then half a cosine down to zero."""
    if step < optimisation.warmup:
        return optimisation.lr * (step + 1) / optimisation.warmup
    done = (step - optimisation.warmup) / max(1, optimisation.steps - optimisation.warmup)
    return optimisation.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def save_atomic(path: Path, payload: object) -> None:
    """Write a checkpoint so that a kill at any moment leaves the old one or the new one whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(path.suffix + ".partial")
    with partial.open("wb") as file:
        torch.save(payload, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def parameter_groups(
    named: Iterable[tuple[str, nn.Parameter]], *, lr_scales: Mapping[str, float] | None = None, weight_decay: float
) -> list[dict[str, Any]]:
    """Split into decayed matrices and undecayed vectors; `lr_scales` maps a name prefix to a factor on the rate."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in named:
        if not parameter.requires_grad:
            continue
        scale = next((s for prefix, s in (lr_scales or {}).items() if name.startswith(prefix)), 1.0)
        decay = weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((scale, decay), []).append(parameter)
    return [{"params": p, "lr_scale": scale, "weight_decay": decay} for (scale, decay), p in groups.items()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """Early stopping: the weights that score best are kept, and training ends when no better ones come.

    Attributes:
        score: Of the weights as they are; higher is better.
        every: Steps between two measurements.
        patience: Measurements without a better score before training ends; 0 never ends it.
    """

    score: Callable[[], float]
    every: int
    patience: int = 0


def optimise(
    modules: nn.ModuleDict,
    loss_fn: LossFn,
    optimisation: Optimisation,
    folder: Path,
    *,
    lr_scales: Mapping[str, float],
    validation: Validation | None = None,
) -> None:
    """Train `modules` in place, from the last checkpoint in `folder` where there is one.

    Args:
        modules: Everything with trainable parameters, saved and restored together.
        loss_fn: Called with a generator and the step; returns the loss and figures to log.
        optimisation: Steps, rates, mixed precision, averaging, seed.
        folder: Gets `checkpoint.pt` and `log.jsonl`.
        lr_scales: Factors on the learning rate by parameter-name prefix.
        validation: Where given, `modules` ends with the (averaged) weights that scored best.
    """
    groups = parameter_groups(modules.named_parameters(), lr_scales=lr_scales, weight_decay=optimisation.weight_decay)
    betas = (optimisation.beta1, optimisation.beta2)
    optimizer = torch.optim.AdamW(groups, lr=optimisation.lr, betas=betas, eps=optimisation.eps)
    trainable = [p for group in optimizer.param_groups for p in group["params"]]
    average = {k: v.clone() for k, v in modules.state_dict().items()} if optimisation.ema else {}
    checkpoint = folder / "checkpoint.pt"
    start = 0
    best: dict[str, Any] = {"score": -math.inf, "step": 0, "weights": {}}
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        modules.load_state_dict(saved["modules"])
        optimizer.load_state_dict(saved["optimizer"])
        average, start, best = saved["average"], int(saved["step"]), saved["best"]
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log.jsonl"
    _truncate_log(log, start)

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as progress, log.open("a", encoding="utf-8") as lines:
        task = progress.add_task("training", total=optimisation.steps, completed=start)
        finished = validation is not None and _stale(best["step"], start, validation)
        for step in () if finished else range(start, optimisation.steps):
            began = time.perf_counter()
            rate = cosine_lr(step, optimisation)
            for group in optimizer.param_groups:
                group["lr"] = rate * group["lr_scale"]
            figures: dict[str, float] = {}
            for micro in range(optimisation.accumulate):
                with _autocast(optimisation.amp):
                    loss, figures = loss_fn(generator(optimisation.seed, step, micro), step)
                (loss / optimisation.accumulate).backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(trainable, optimisation.clip_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if average:
                _update_average(average, modules, optimisation.ema, step)
            record = {"step": step, "lr": rate, "loss": float(loss.detach()), **figures}
            due = validation is not None and (step + 1) % validation.every == 0
            if validation is not None and due:
                record["score"] = _score(modules, average, validation)
                if record["score"] > best["score"]:
                    weights = {k: v.clone() for k, v in (average or modules.state_dict()).items()}
                    best = {"score": record["score"], "step": step + 1, "weights": weights}
            lines.write(json.dumps({**record, "seconds": round(time.perf_counter() - began, 3)}) + "\n")
            lines.flush()
            progress.update(task, advance=1, description=f"loss {record['loss']:.4f}")
            stale = validation is not None and due and _stale(best["step"], step + 1, validation)
            if (step + 1) % optimisation.checkpoint_every == 0 or step + 1 == optimisation.steps or stale:
                payload = {"modules": modules.state_dict(), "optimizer": optimizer.state_dict(), "best": best}
                save_atomic(checkpoint, {**payload, "average": average, "step": step + 1})
            if stale:
                break
    if best["weights"] or average:
        modules.load_state_dict(best["weights"] or average)


def _score(modules: nn.ModuleDict, average: Mapping[str, Tensor], validation: Validation) -> float:
    """The score of the averaged weights, where there are any; the modules are left as they were."""
    own = {k: v.clone() for k, v in modules.state_dict().items()}
    modes = {module: module.training for module in modules.modules()}
    modules.load_state_dict(average or own)
    modules.eval()
    with torch.no_grad():
        score = validation.score()
    modules.load_state_dict(own)
    for module, mode in modes.items():
        module.training = mode
    return score


def _stale(best: int, step: int, validation: Validation) -> bool:
    return bool(validation.patience) and step - best >= validation.patience * validation.every


def _update_average(average: dict[str, Tensor], modules: nn.ModuleDict, decay: float, step: int) -> None:
    decay = min(decay, (step + 1) / (step + 10))
    for name, value in modules.state_dict().items():
        if value.is_floating_point():
            average[name].lerp_(value, 1 - decay)
        else:
            average[name].copy_(value)


def _autocast(amp: str) -> torch.autocast:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = {"off": torch.bfloat16, "bf16": torch.bfloat16, "fp16": torch.float16}[amp]
    return torch.autocast(device, dtype=dtype, enabled=amp != "off")


def _truncate_log(log: Path, start: int) -> None:
    """Drop lines past the checkpoint, so that a resumed run's log has each step once."""
    if log.exists():
        kept = [line for line in log.read_text(encoding="utf-8").splitlines() if json.loads(line)["step"] < start]
        log.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
