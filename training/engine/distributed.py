"""Data parallelism under torchrun: each process embeds its part of a batch, embeddings are gathered, DDP averages.

torchrun --nproc-per-node 2 -m training.train_raf_clip training/configs/raf_clip_vit_b_32.toml

All processes draw the same batch from the same seed and compute the loss of the whole batch, so that W processes
compute what one does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, distributed

from fashion_retrieval.errors import ConfigError

_TIMEOUT = timedelta(hours=6)
"""The other processes wait for the main one, which alone prepares files and measures."""


@dataclass(frozen=True, slots=True)
class DistributedEnv:
    """The processes of a run: one, unless torchrun started more."""

    rank: int  # number of this process, from 0
    world_size: int  # number of processes
    device: torch.device  # where this process computes

    @property
    def is_main_process(self) -> bool:
        """True for the one process that writes files and shows progress."""
        return self.rank == 0

    def rows(self, count: int) -> slice:
        """This process's rows of a batch of `count`, which must be a multiple of the number of processes."""
        if count % self.world_size:
            raise ConfigError(
                f"a batch of {count} can't be shared evenly by {self.world_size} processes; choose a multiple"
            )
        size = count // self.world_size
        return slice(self.rank * size, (self.rank + 1) * size)

    def all_gather(self, features: Tensor) -> Tensor:
        """The embeddings of the whole batch, in its order: (b / world_size, …) -> (b, …).

        The gradient flows into this process's own rows. Every process has the loss of the whole batch, so that is all
        of their gradient, and `world_size` times it makes the mean over the processes, which DDP takes, their sum.
        """
        if self.world_size == 1:
            return features
        parts = [torch.empty_like(features, memory_format=torch.contiguous_format) for _ in range(self.world_size)]
        distributed.all_gather(parts, features.detach().contiguous())
        parts[self.rank] = features.view_as(features)
        if features.requires_grad:
            parts[self.rank].register_hook(  # type: ignore[no-untyped-call]
                lambda gradient: gradient * self.world_size
            )
        return torch.cat(parts)

    def all_values(self, value: float) -> list[float]:
        """The value of every process, by rank."""
        if self.world_size == 1:
            return [value]
        values = [0.0] * self.world_size
        distributed.all_gather_object(values, value)
        return values

    def barrier(self) -> None:
        """Wait until every process has come here."""
        if self.world_size > 1:
            distributed.barrier()


def single_process() -> DistributedEnv:
    """This process and no other."""
    return DistributedEnv(0, 1, torch.device("cuda" if torch.cuda.is_available() else "cpu"))


@contextmanager
def distributed_env() -> Iterator[DistributedEnv]:
    """The processes that torchrun started: NCCL between GPUs, gloo between CPUs."""
    world_size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    if world_size == 1:
        yield single_process()
        return
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if cuda else "gloo", timeout=_TIMEOUT)
    try:
        yield DistributedEnv(rank, world_size, device)
    finally:
        distributed.destroy_process_group()
