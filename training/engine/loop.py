"""The training loop of all recipes, which resumes exactly, in one process or under torchrun, and its checkpoints.

All random numbers of a step come from `generator(seed, step)`, those of dropout too, so a resumed run equals a straight
one.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel as Parallel

from fashion_retrieval._utils.files import write_atomically
from fashion_retrieval._utils.progress import progress_bar
from fashion_retrieval.errors import ConfigError
from training.engine.distributed import DistributedEnv, single_process
from training.engine.errors import TrainingError
from training.engine.optimizer import OptimizerConfig, averaged_model, learning_rate, parameter_groups
from training.engine.settings import check_settings
from training.engine.tracking import Sink, Tracker, track

LossFn = Callable[[torch.Generator, int], tuple[Tensor, dict[str, float]]]
CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """Early stopping: the weights with the best score are kept, and training ends when no better ones come."""

    score: Callable[[], float]  # higher is better; only the main process calls it
    every: int  # steps between two measurements
    patience: int = 0  # measurements without a better score before training ends; 0 never ends it


def generator(seed: int, *counters: int) -> torch.Generator:
    """A generator that depends on the seed and the counters alone (step, micro-batch …)."""
    mixed = seed
    for counter in counters:
        mixed = (mixed * 1_000_003 + counter + 1) % (2**63 - 1)
    return torch.Generator().manual_seed(mixed)


def train(
    modules: nn.ModuleDict,
    loss_fn: LossFn,
    config: OptimizerConfig,
    folder: Path,
    *,
    lr_scales: Mapping[str, float],
    validation: Validation | None = None,
    env: DistributedEnv | None = None,
    tracking: Sequence[Tracker] = (),
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Train `modules` in place, from the last checkpoint in `folder` if there is one.

    `loss_fn` gets a generator and the step, and returns the loss and metrics to log. Under torchrun all processes get
    the same generator and return the same loss: that of the whole batch, of which each embeds its part. `folder` gets
    `checkpoint.pt` and `log.jsonl`, and all processes must see it. `lr_scales` are factors on the learning rate by
    parameter-name prefix; `settings`, the recipe, is shown in the trackers. With `validation`, `modules` ends with the
    (averaged) weights that scored best. A loss that is not finite raises TrainingError; the last checkpoint stays.
    """
    check_settings(config, "the optimizer's configuration")
    if not config.steps:
        raise ConfigError("epochs must be turned into steps: call `in_steps`")
    env = env or single_process()
    run = _Run(modules, loss_fn, config, lr_scales, env)
    checkpoint = folder / CHECKPOINT
    run.restore(checkpoint)
    if env.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
        for partial in folder.glob(f".*.partial{checkpoint.suffix}"):  # of a run that was killed while it wrote
            partial.unlink()
    shown = {"optimization": asdict(config)} if settings is None else settings
    with _reporting(folder, run.step, config.steps, env, tracking, shown) as report:
        while run.step < config.steps and not run.is_stale(validation):
            began = time.perf_counter()
            metrics = run.advance()
            if validation is not None and run.step % validation.every == 0:
                metrics["score"] = run.measure(validation)
            report(run.step - 1, {**metrics, "seconds": round(time.perf_counter() - began, 3)})
            done = run.step == config.steps or run.is_stale(validation)
            if env.is_main_process and (done or run.step % config.checkpoint_every == 0):
                # A kill, or a power cut, leaves the old checkpoint or the new one whole.
                with write_atomically(checkpoint) as partial, partial.open("wb") as file:
                    torch.save(run.state(), file)
                    file.flush()
                    os.fsync(file.fileno())
    if run.best["weights"] or run.average is not None:
        modules.load_state_dict(run.best["weights"] or run.averaged_weights())


class _Objective(nn.Module):
    """The loss as a module's forward pass, which is what DDP averages the gradients of."""

    def __init__(self, modules: nn.ModuleDict, loss_fn: LossFn) -> None:
        super().__init__()
        self.trained, self.loss_fn = modules, loss_fn

    def forward(self, rng: torch.Generator, step: int) -> tuple[Tensor, dict[str, float]]:
        return self.loss_fn(rng, step)


def data_parallel(modules: nn.ModuleDict, loss_fn: LossFn, env: DistributedEnv) -> nn.Module:
    """A module that calls `loss_fn`; of several processes it averages the gradients, from the main one's weights on."""
    objective = _Objective(modules, loss_fn)
    if env.world_size == 1:
        return objective
    return Parallel(objective, find_unused_parameters=True)


class _Run:
    """A training run between two steps: everything that its checkpoint holds."""

    def __init__(
        self,
        modules: nn.ModuleDict,
        loss_fn: LossFn,
        config: OptimizerConfig,
        lr_scales: Mapping[str, float],
        env: DistributedEnv,
    ) -> None:
        self.modules, self.config, self.env = modules, config, env
        self.objective = data_parallel(modules, loss_fn, env)
        named = modules.named_parameters()
        groups = parameter_groups(named, lr_scales=lr_scales, weight_decay=config.weight_decay)
        self.optimizer = torch.optim.AdamW(groups, lr=config.lr, betas=(config.beta1, config.beta2), eps=config.eps)
        self.trainable = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.device = next(modules.parameters()).device
        self.dtype = torch.float16 if config.amp == "fp16" else torch.bfloat16
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.amp == "fp16")
        self.average = averaged_model(modules, config.ema) if config.ema else None
        self.best: dict[str, Any] = {"score": -math.inf, "step": 0, "weights": {}}
        self.step = 0

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {
            "modules": self.modules.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": self.averaged_weights(),
            "best": self.best,
            "step": self.step,
        }

    def averaged_weights(self) -> dict[str, Tensor]:
        """The averaged weights by name; empty if none are kept."""
        return {} if self.average is None else self.average.module.state_dict()

    def restore(self, checkpoint: Path) -> None:
        """Go on from a checkpoint, if there is one."""
        if checkpoint.exists():
            try:
                saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
                self.modules.load_state_dict(saved["modules"])
                self.optimizer.load_state_dict(saved["optimizer"])
                self.scaler.load_state_dict(saved.get("scaler") or self.scaler.state_dict())
                self.best, self.step = saved["best"], int(saved["step"])
                if self.average is not None:
                    self.average.module.load_state_dict(saved["average"])
                    self.average.n_averaged.fill_(self.step + 1)
            except (RuntimeError, ValueError, KeyError, EOFError, OSError, UnpicklingError) as error:
                first = str(error).strip().partition("\n")[0]
                raise ConfigError(
                    f"{checkpoint} is of another recipe or damaged ({first}); move it away or choose another output"
                ) from error
        steps = [int(step) for step in self.env.all_values(self.step)]
        if len(set(steps)) > 1:
            raise ConfigError(
                f"the processes see checkpoints of different steps ({', '.join(map(str, steps))}) in "
                f"{checkpoint.parent}; put the output on a disk that all share"
            )

    def advance(self) -> dict[str, float]:
        """One step; returns its metrics, of accumulated batches their mean."""
        config, rate = self.config, learning_rate(self.step, self.config)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"]
        means: dict[str, float] = {}
        for micro in range(config.accumulate):
            rng = generator(config.seed, self.step, micro)
            torch.manual_seed(generator(config.seed, self.step, micro, self.env.rank).initial_seed())  # of dropout
            last = micro == config.accumulate - 1
            objective = self.objective  # DDP exchanges gradients once a step, with those of its last batch
            with objective.no_sync() if isinstance(objective, Parallel) and not last else nullcontext():
                with torch.autocast(self.device.type, dtype=self.dtype, enabled=config.amp != "off"):
                    loss, metrics = objective(rng, self.step)
                if not torch.isfinite(loss):
                    raise TrainingError(
                        f"the loss of step {self.step} is {loss.item()}; run again from the last checkpoint with a "
                        "lower lr, a longer warmup or amp = 'bf16'"
                    )
                self.scaler.scale(loss / config.accumulate).backward()
            for name, value in {"loss": float(loss.detach()), **metrics}.items():
                means[name] = means.get(name, 0.0) + value / config.accumulate
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.trainable, config.clip_norm)
        if self.scaler.is_enabled():
            means["loss_scale"] = self.scaler.get_scale()
        if self.device.type == "cuda":
            means["gpu_memory_gb"] = round(torch.cuda.max_memory_allocated(self.device) / 1e9, 3)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update_parameters(self.modules)
        self.step += 1
        return {"lr": rate, **means}

    def measure(self, validation: Validation) -> float:
        """The score of the averaged weights, if there are any; the modules are left as they were."""
        own = {name: value.clone() for name, value in self.modules.state_dict().items()}
        weights = self.averaged_weights() or own
        score = 0.0
        if self.env.is_main_process:
            modes = {module: module.training for module in self.modules.modules()}
            self.modules.load_state_dict(weights)
            self.modules.eval()
            with torch.no_grad():
                score = validation.score()
            self.modules.load_state_dict(own)
            for module, mode in modes.items():
                module.training = mode
        score = self.env.all_values(score)[0]
        if score > self.best["score"]:
            kept = {name: value.clone() for name, value in weights.items()}
            self.best = {"score": score, "step": self.step, "weights": kept}
        return score

    def is_stale(self, validation: Validation | None) -> bool:
        """Whether more measurements than `patience` allows have passed without a better score."""
        if validation is None or not validation.patience:
            return False
        return bool(self.step - self.best["step"] >= validation.patience * validation.every)


@contextmanager
def _reporting(
    folder: Path, start: int, steps: int, env: DistributedEnv, tracking: Sequence[Tracker], settings: Mapping[str, Any]
) -> Iterator[Sink]:
    """Log and progress bar of the main process; the others report nothing."""
    if not env.is_main_process:
        yield lambda step, metrics: None
        return
    bar = progress_bar("training", steps, shown=True, unit="steps")
    with track(folder, tracking, start, settings) as write, bar as advance:
        advance(start)

        def report(step: int, metrics: Mapping[str, float]) -> None:
            write(step, metrics)
            advance(description=f"loss {metrics['loss']:.4f}")

        yield report
