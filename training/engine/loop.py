"""What every recipe shares: a training loop that resumes exactly, alone or under torchrun, and its checkpoints.

All chance of a step is drawn from `generator(seed, step)`, dropout too, so a resumed run equals a straight one.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn

from fashion_retrieval.errors import ConfigError
from training.engine.distributed import World, alone
from training.engine.optimizer import Optimization as Optimization
from training.engine.optimizer import learning_rate, parameter_groups, update_average
from training.engine.settings import from_mapping as from_mapping
from training.engine.settings import read_settings as read_settings
from training.engine.tracking import Sink, Tracker, track

LossFn = Callable[[torch.Generator, int], tuple[Tensor, dict[str, float]]]
CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """Early stopping: the weights that score best are kept, and training ends when no better ones come.

    Attributes:
        score: Of the weights as they are; higher is better. Only the leading process asks.
        every: Steps between two measurements.
        patience: Measurements without a better score before training ends; 0 never ends it.
    """

    score: Callable[[], float]
    every: int
    patience: int = 0


def generator(seed: int, *counters: int) -> torch.Generator:
    """A generator that depends on the seed and the counters alone (step, micro-batch …)."""
    mixed = seed
    for counter in counters:
        mixed = (mixed * 1_000_003 + counter + 1) % (2**63 - 1)
    return torch.Generator().manual_seed(mixed)


def optimize(
    modules: nn.ModuleDict,
    loss_fn: LossFn,
    optimization: Optimization,
    folder: Path,
    *,
    lr_scales: Mapping[str, float],
    validation: Validation | None = None,
    world: World | None = None,
    tracking: Sequence[Tracker] = (),
    config: Mapping[str, Any] | None = None,
) -> None:
    """Train `modules` in place, from the last checkpoint in `folder` where there is one.

    Args:
        modules: Everything with trainable parameters, saved and restored together.
        loss_fn: Called with a generator and the step; returns the loss and figures to log. Under torchrun all processes
            get the same generator and return the same loss: that of the whole batch, of which each computes its share.
        optimization: Steps, rates, mixed precision, averaging, seed.
        folder: Gets `checkpoint.pt` and `log.jsonl`; under torchrun all processes must see it.
        lr_scales: Factors on the learning rate by parameter-name prefix.
        validation: Where given, `modules` ends with the (averaged) weights that scored best.
        world: The processes of the run; this one alone by default.
        tracking: What the figures go to beside the log.
        config: Shown there with the run.

    Raises:
        ConfigError: The optimization can't be, or the checkpoint is of another model or seen by some processes only.
        MissingExtraError: A tracker's package is not installed.
    """
    faults = optimization.faults() or ["epochs must be turned into steps: call `in_steps`"] * (not optimization.steps)
    if faults:
        raise ConfigError("; ".join(faults))
    world = world or alone()
    run = _Run(modules, optimization, lr_scales, world)
    checkpoint = folder / CHECKPOINT
    run.restore(checkpoint)
    if world.leads:
        folder.mkdir(parents=True, exist_ok=True)
    shown = {"optimization": asdict(optimization)} if config is None else config
    with _reporting(folder, run.step, optimization.steps, world, tracking, shown) as report:
        while run.step < optimization.steps and not run.stale(validation):
            began = time.perf_counter()
            figures = run.advance(loss_fn)
            if validation is not None and run.step % validation.every == 0:
                figures["score"] = run.measure(validation)
            report(run.step - 1, {**figures, "seconds": round(time.perf_counter() - began, 3)})
            done = run.step == optimization.steps or run.stale(validation)
            if world.leads and (done or run.step % optimization.checkpoint_every == 0):
                save_atomic(checkpoint, run.state())
    if run.best["weights"] or run.average:
        modules.load_state_dict(run.best["weights"] or run.average)


class _Run:
    """A training run between two steps: everything that its checkpoint holds."""

    def __init__(
        self, modules: nn.ModuleDict, optimization: Optimization, lr_scales: Mapping[str, float], world: World
    ) -> None:
        self.modules, self.plan, self.world = modules, optimization, world
        world.copy_from_lead(modules.state_dict().values())
        named = modules.named_parameters()
        groups = parameter_groups(named, lr_scales=lr_scales, weight_decay=optimization.weight_decay)
        betas = (optimization.beta1, optimization.beta2)
        self.optimizer = torch.optim.AdamW(groups, lr=optimization.lr, betas=betas, eps=optimization.eps)
        self.trainable = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.device = next(modules.parameters()).device.type
        self.scaler = torch.amp.GradScaler(self.device, enabled=optimization.amp == "fp16")
        self.average = {k: v.clone() for k, v in modules.state_dict().items()} if optimization.ema else {}
        self.best: dict[str, Any] = {"score": -math.inf, "step": 0, "weights": {}}
        self.step = 0

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {
            "modules": self.modules.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": self.average,
            "best": self.best,
            "step": self.step,
        }

    def restore(self, checkpoint: Path) -> None:
        """Go on from a checkpoint, where there is one."""
        if checkpoint.exists():
            try:
                saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
                self.modules.load_state_dict(saved["modules"])
                self.optimizer.load_state_dict(saved["optimizer"])
                self.scaler.load_state_dict(saved.get("scaler") or self.scaler.state_dict())
                own = self.modules.state_dict()
                self.average = {name: value.to(own[name].device) for name, value in saved["average"].items()}
                self.best, self.step = saved["best"], int(saved["step"])
            except (RuntimeError, ValueError, KeyError, EOFError, OSError, UnpicklingError) as error:
                first = str(error).strip().partition("\n")[0]
                raise ConfigError(
                    f"{checkpoint} is of another recipe or damaged ({first}); move it away or choose another output"
                ) from error
        steps = self.world.each(self.step)
        if len(set(steps)) > 1:
            raise ConfigError(
                f"the processes see checkpoints of different steps ({', '.join(map(str, steps))}) in "
                f"{checkpoint.parent}; put the output on a disk that all share"
            )

    def advance(self, loss_fn: LossFn) -> dict[str, float]:
        """One step; returns its figures."""
        plan, rate = self.plan, learning_rate(self.step, self.plan)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"]
        figures: dict[str, float] = {}
        for micro in range(plan.accumulate):
            chance = generator(plan.seed, self.step, micro)
            torch.manual_seed(generator(plan.seed, self.step, micro, self.world.rank).initial_seed())  # of dropout
            with autocast(plan.amp, self.device):
                loss, figures = loss_fn(chance, self.step)
            self.scaler.scale(loss / plan.accumulate).backward()  # type: ignore[no-untyped-call]
        self.world.average_gradients(self.trainable)
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.trainable, plan.clip_norm)
        if self.scaler.is_enabled():
            figures["loss_scale"] = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average:
            update_average(self.average, self.modules, plan.ema, self.step)
        self.step += 1
        return {"lr": rate, "loss": float(loss.detach()), **figures}

    def measure(self, validation: Validation) -> float:
        """The score of the averaged weights, where there are any; the modules are left as they were."""
        weights = self.average or {k: v.clone() for k, v in self.modules.state_dict().items()}
        score = 0.0
        if self.world.leads:
            own = {k: v.clone() for k, v in self.modules.state_dict().items()}
            modes = {module: module.training for module in self.modules.modules()}
            self.modules.load_state_dict(weights)
            self.modules.eval()
            with torch.no_grad():
                score = validation.score()
            self.modules.load_state_dict(own)
            for module, mode in modes.items():
                module.training = mode
        score = self.world.each(score)[0]
        if score > self.best["score"]:
            kept = {k: v.clone() for k, v in weights.items()}
            self.best = {"score": score, "step": self.step, "weights": kept}
        return score

    def stale(self, validation: Validation | None) -> bool:
        """Whether the last measurements had no better score, more of them than patience allows."""
        if validation is None or not validation.patience:
            return False
        return bool(self.step - self.best["step"] >= validation.patience * validation.every)


def autocast(amp: str, device: str) -> torch.autocast:
    """Mixed precision as `Optimization.amp` names it."""
    dtype = torch.float16 if amp == "fp16" else torch.bfloat16
    return torch.autocast(device, dtype=dtype, enabled=amp != "off")


def save_atomic(path: Path, payload: object) -> None:
    """Write a checkpoint so that a kill at any moment leaves the old one or the new one whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(path.suffix + ".partial")
    with partial.open("wb") as file:
        torch.save(payload, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


@contextmanager
def _reporting(
    folder: Path, start: int, steps: int, world: World, tracking: Sequence[Tracker], config: Mapping[str, Any]
) -> Iterator[Sink]:
    """Log and progress of the leading process; the others say nothing."""
    if not world.leads:
        yield lambda step, figures: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with track(folder, tracking, start, config) as write, Progress(*columns) as progress:
        task = progress.add_task("training", total=steps, completed=start)

        def report(step: int, figures: Mapping[str, float]) -> None:
            write(step, figures)
            progress.update(task, advance=1, description=f"loss {figures['loss']:.4f}")

        yield report
