"""Data parallelism under torchrun: each process takes its share of a batch, features are gathered, gradients averaged.

torchrun --nproc-per-node 2 -m training.train_raf_clip training/configs/raf_clip_vit_b_32.toml

Every process draws the same batch from the same seed and takes its part of it, so that W processes compute what one
does with the whole batch.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn
from torch.distributed.nn.functional import all_gather

from fashion_retrieval.errors import ConfigError


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

    def share(self, batch: Tensor) -> Tensor:
        """This process's rows of a batch that all have drawn alike: (b, …) -> (b / size, …).

        Raises:
            ConfigError: The batch can't be split evenly.
        """
        if len(batch) % self.size:
            raise ConfigError(
                f"a batch of {len(batch)} can't be shared evenly by {self.size} processes; choose a multiple"
            )
        rows = len(batch) // self.size
        return batch[self.rank * rows : (self.rank + 1) * rows]

    def gather(self, features: Tensor) -> Tensor:
        """The features of the whole batch, in its order, with gradients: (b / size, …) -> (b, …).

        Backward sums what every process's loss says of a feature; with `average_gradients` that is the gradient of one
        process with the whole batch.
        """
        return features if self.size == 1 else torch.cat(all_gather(features))  # type: ignore[no-untyped-call]

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by its mean over the processes, in one exchange a dtype."""
        if self.size == 1:
            return
        by_dtype: dict[torch.dtype, list[Tensor]] = {}
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            by_dtype.setdefault(parameter.grad.dtype, []).append(parameter.grad)
        for gradients in by_dtype.values():
            flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
            distributed.all_reduce(flat)
            start = 0
            for gradient in gradients:
                mean = flat[start : start + gradient.numel()] / self.size
                gradient.copy_(mean.view_as(gradient))
                start += gradient.numel()

    def wait(self) -> None:
        """Go on when every process has come here."""
        if self.size > 1:
            distributed.barrier()


@contextmanager
def world() -> Iterator[World]:
    """The run's processes, as torchrun's environment says: NCCL between GPUs, gloo between CPUs."""
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if cuda else torch.device("cpu")
    if size == 1:
        yield World(0, 1, torch.device("cuda") if cuda else device)
        return
    if cuda:
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if cuda else "gloo")
    try:
        yield World(rank, size, device)
    finally:
        distributed.destroy_process_group()
