"""Data parallelism under torchrun: each process takes its share of a batch, features are gathered, gradients averaged.

torchrun --nproc-per-node 2 -m training.train_raf_clip training/configs/raf_clip_vit_b_32.toml

Every process draws the same batch from the same seed and takes its part of it, so that W processes compute what one
does with the whole batch.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, distributed, nn
from torch.autograd.function import FunctionCtx

from fashion_retrieval.errors import ConfigError

_PATIENCE = timedelta(hours=6)
"""How long processes wait for the leading one, which alone prepares files and measures."""


@dataclass(frozen=True, slots=True)
class World:
    """The processes of a run: one, unless torchrun started more.

    Attributes:
        rank: Of this process, from 0.
        size: How many there are.
        device: Where this process computes.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """True for the one process that writes files and shows progress."""
        return self.rank == 0

    def rows(self, count: int) -> slice:
        """This process's rows of a batch of so many, which all have drawn alike.

        Raises:
            ConfigError: The batch can't be split evenly.
        """
        if count % self.size:
            raise ConfigError(f"a batch of {count} can't be shared evenly by {self.size} processes; choose a multiple")
        share = count // self.size
        return slice(self.rank * share, (self.rank + 1) * share)

    def share(self, batch: Tensor) -> Tensor:
        """This process's part of a batch: (b, …) -> (b / size, …).

        Raises:
            ConfigError: The batch can't be split evenly.
        """
        return batch[self.rows(len(batch))]

    def gather(self, features: Tensor) -> Tensor:
        """The features of the whole batch, in its order, with gradients: (b / size, …) -> (b, …).

        Backward sums what every process's loss says of a feature; with `average_gradients` that is the gradient of one
        process with the whole batch.
        """
        if self.size == 1:
            return features
        gathered: Tensor = _Gather.apply(features, self.rows(len(features) * self.size), self.size)
        return gathered

    def average_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace each gradient by its mean over the processes, in one exchange a dtype.

        A parameter that no process has a gradient for stays without, so that its weights don't decay.
        """
        if self.size == 1:
            return
        found = torch.tensor([p.grad is not None for p in parameters], dtype=torch.uint8, device=self.device)
        distributed.all_reduce(found, distributed.ReduceOp.MAX)
        by_dtype: dict[torch.dtype, list[Tensor]] = {}
        for parameter, anywhere in zip(parameters, found.tolist(), strict=True):
            if anywhere:
                gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                parameter.grad = gradient
                by_dtype.setdefault(gradient.dtype, []).append(gradient)
        for gradients in by_dtype.values():
            flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
            distributed.all_reduce(flat)
            flat /= self.size
            for gradient, mean in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
                gradient.copy_(mean.view_as(gradient))

    def copy_from_lead(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors with those of the leading process, so that all start alike."""
        if self.size > 1:
            for tensor in tensors:
                distributed.broadcast(tensor.detach(), 0)

    def each(self, value: float) -> list[float]:
        """What every process says, by rank."""
        if self.size == 1:
            return [value]
        said = torch.tensor([value], dtype=torch.float64, device=self.device)
        heard = [torch.empty_like(said) for _ in range(self.size)]
        distributed.all_gather(heard, said)
        return [float(one) for one in heard]

    def wait(self) -> None:
        """Go on when every process has come here."""
        if self.size > 1:
            distributed.barrier()


class _Gather(torch.autograd.Function):
    """Features of all processes one after another; what each says of a feature adds up in its gradient."""

    @staticmethod
    def forward(ctx: FunctionCtx, features: Tensor, rows: slice, size: int) -> Tensor:
        ctx.rows = rows  # type: ignore[attr-defined]
        parts = [torch.empty_like(features, memory_format=torch.contiguous_format) for _ in range(size)]
        distributed.all_gather(parts, features.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None, None]:
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(gradient)
        return gradient[ctx.rows], None, None  # type: ignore[attr-defined]


def alone() -> World:
    """This process and no other."""
    return World(0, 1, torch.device("cuda" if torch.cuda.is_available() else "cpu"))


@contextmanager
def world() -> Iterator[World]:
    """The run's processes, as torchrun's environment says: NCCL between GPUs, gloo between CPUs."""
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    if size == 1:
        yield alone()
        return
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if cuda else "gloo", timeout=_PATIENCE)
    try:
        yield World(rank, size, device)
    finally:
        distributed.destroy_process_group()
