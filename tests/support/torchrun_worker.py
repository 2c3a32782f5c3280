"""What each process of a torchrun test does: exchanges with a known outcome, then RaF-CLIP's command."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from fashion_retrieval.models.encoder import Encoder
from training import train_raf_clip
from training.engine.distributed import DistributedEnv
from training.engine.loop import data_parallel
from training.recipes.losses import category_loss, wrong_pairs
from training.recipes.raf_clip_settings import Settings

_SCALE = torch.tensor(7.0, dtype=torch.float64)


def two_linear_towers(seed: int = 0) -> nn.ModuleDict:
    """Two towers, a layer that only the main process uses, and one that none does."""
    torch.manual_seed(seed)
    names = ("image", "text", "odd", "unused")
    return nn.ModuleDict({name: nn.Linear(5, 3, bias=False) for name in names}).double()


def gradients(modules: nn.ModuleDict, env: DistributedEnv) -> tuple[float, list[Tensor | None]]:
    """The loss of a batch of six of which this process embeds its part, and the averaged gradients."""

    def loss_fn(rng: torch.Generator, step: int) -> tuple[Tensor, dict[str, float]]:
        batches = [torch.randn(6, 5, generator=rng, dtype=torch.float64) for _ in range(2)]
        image, text = (
            nn.functional.normalize(env.all_gather(modules[name](batch[env.rows(6)])), dim=-1)
            for name, batch in zip(("image", "text"), batches, strict=True)
        )
        loss = category_loss(image, text, _SCALE, wrong_pairs(torch.arange(6), "identity"))
        odd = modules["odd"](batches[0]).sum() if env.is_main_process else 0
        return loss + odd, {"loss": loss.item()}

    objective = data_parallel(modules, loss_fn, env)
    total, metrics = objective(torch.Generator().manual_seed(1), 0)
    total.backward()
    return metrics["loss"], [parameter.grad for parameter in modules.parameters()]


def exchange(env: DistributedEnv, path: Path) -> None:
    """Write what this process found."""
    loss, found = gradients(two_linear_towers(seed=env.rank), env)  # all start from the main process's weights
    env.barrier()
    torch.save({"loss": loss, "gradients": found, "values": env.all_values(10.0 + env.rank)}, path)


if __name__ == "__main__":
    config, folder = map(Path, sys.argv[1:])
    plain = train_raf_clip.train

    def train(settings: Settings, env: DistributedEnv | None = None) -> Encoder:
        """The recipe, after the exchanges."""
        assert env is not None
        exchange(env, folder / f"{env.rank}.pt")
        return plain(settings, env)

    train_raf_clip.train = train
    train_raf_clip.main(config)
