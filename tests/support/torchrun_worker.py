"""What each process of a torchrun test does: exchanges of which the outcome is known, then RaF-CLIP's command."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from fashion_retrieval.models.encoder import Encoder
from training import train_raf_clip
from training.engine.distributed import World
from training.recipes.losses import category_loss, wrong_pairs
from training.recipes.raf_clip_settings import Settings

_SCALE = torch.tensor(7.0, dtype=torch.float64)


def two_linear_towers() -> nn.ModuleDict:
    """And a layer that only the leading process uses, and one that none does."""
    torch.manual_seed(0)
    names = ("image", "text", "odd", "unused")
    return nn.ModuleDict({name: nn.Linear(5, 3, bias=False) for name in names}).double()


def gradients(modules: nn.ModuleDict, world: World) -> tuple[float, list[Tensor | None]]:
    """The loss of a batch of six of which this process embeds its share, and the averaged gradients."""
    chance = torch.Generator().manual_seed(1)
    batches = [torch.randn(6, 5, generator=chance, dtype=torch.float64) for _ in range(2)]
    image, text = (
        nn.functional.normalize(world.gather(modules[name](world.share(batch))), dim=-1)
        for name, batch in zip(("image", "text"), batches, strict=True)
    )
    loss = category_loss(image, text, _SCALE, wrong_pairs(torch.arange(6), "identity"))
    loss.backward()
    if world.leads:
        modules["odd"](batches[0]).sum().backward()
    world.average_gradients(list(modules.parameters()))
    return loss.item(), [parameter.grad for parameter in modules.parameters()]


def exchange(world: World, path: Path) -> None:
    """Write what this process found."""
    loss, found = gradients(two_linear_towers(), world)
    copied = torch.full((3,), world.rank)
    world.copy_from_lead([copied])
    world.wait()
    torch.save({"loss": loss, "gradients": found, "said": world.each(10.0 + world.rank), "copied": copied}, path)


if __name__ == "__main__":
    config, folder = map(Path, sys.argv[1:])
    plain = train_raf_clip.train

    def train(settings: Settings, world: World | None = None) -> Encoder:
        """The recipe, after the exchanges."""
        assert world is not None
        exchange(world, folder / f"{world.rank}.pt")
        return plain(settings, world)

    train_raf_clip.train = train
    train_raf_clip.main(config)
