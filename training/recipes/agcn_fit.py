"""Train a composer on frozen features, and rank what it asks for; the recipe of AGCN and of all it is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from training.composers.base import Baseline
from training.data.batches import epoch_rows
from training.data.triplets import Group, join_captions, training_caption
from training.engine.distributed import World
from training.engine.loop import Validation, optimize
from training.evaluation.metrics import rank_targets, recall_at_k
from training.recipes.agcn_data import Material
from training.recipes.agcn_settings import Settings
from training.recipes.losses import composition_loss

_BATCH = 128


class Temperature(nn.Module):
    """The learned tau' of eq. (14)."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(-float(np.log(start))))

    def forward(self) -> Tensor:
        """The factor on the cosines, at most 100."""
        return self.log_scale.clamp(max=4.6052).exp()


@dataclass(frozen=True, slots=True)
class Batch:
    """Queries and what they ask for.

    Attributes:
        image: (b, 1 + k, d) float32.
        words: (b, s, d) float32.
        lengths: (b,) int64.
        targets: (b,) int64: rows of the gallery.
    """

    image: Tensor
    words: Tensor
    lengths: Tensor
    targets: Tensor


def fit(composer: nn.Module, settings: Settings, material: Material, folder: Path, world: World) -> None:
    """Train in place, from the last checkpoint in `folder` where there is one; it ends in eval mode.

    The processes of a world share each batch, and every query of it is told from the targets of all.

    Raises:
        ConfigError: A batch can't be shared evenly; the checkpoint is of another recipe.
    """
    temperature = Temperature(settings.temperature).to(world.device)
    gallery = material.gallery.to(world.device)
    of_people = settings.batch_size - derived_count(settings, material)

    def loss_fn(chance: torch.Generator, step: int) -> tuple[Tensor, dict[str, float]]:
        batch, targets = draw(settings, material, step, chance, world)
        scale = temperature()
        if isinstance(composer, Baseline):
            query, extra = composer.learn(batch.image, batch.words, batch.lengths, gallery[batch.targets], scale)
        else:
            query, extra = composer(batch.image, batch.words, batch.lengths), scale.new_zeros(())
        with torch.autocast(world.device.type, enabled=False):
            loss = composition_loss(world.gather(query.float()), gallery, targets, scale, settings.negatives)
        return loss + extra, {"scale": scale.item(), "extra": extra.item()}

    validation = Validation(
        score=lambda: held_out_recall(composer, material, world.device),
        every=settings.validate_every,
        patience=settings.patience,
    )
    optimize(
        nn.ModuleDict({"composer": composer.train(), "temperature": temperature}),
        loss_fn,
        settings.optimization.in_steps(len(material.triplets) / of_people),
        folder,
        lr_scales=settings.lr_scales,
        validation=validation if settings.validate_every and material.validation else None,
        world=world,
        tracking=settings.tracking,
        config=asdict(settings),
    )
    composer.eval()


def draw(
    settings: Settings, material: Material, step: int, chance: torch.Generator, world: World
) -> tuple[Batch, Tensor]:
    """This process's share of a batch that all draw alike, and (b,) int64 targets of the whole batch."""
    derived = derived_count(settings, material)
    pools = [(material.triplets, settings.batch_size - derived)] + [(material.derived, derived)] * (derived > 0)
    chosen = []
    for pool, count in pools:
        if settings.sampling == "epoch":
            rows = epoch_rows(len(pool), count, step, settings.optimization.seed)
        else:
            rows = torch.randint(len(pool), (count,), generator=chance)
        chosen += [pool[row] for row in rows.tolist()]
    texts = [training_caption(example.captions, chance) for example in chosen]
    targets = torch.tensor([example.target for example in chosen])
    own = world.rows(len(chosen))
    words, lengths = material.texts(texts[own])
    image = material.tokens[[example.reference for example in chosen[own]]].float()
    parts = (part.to(world.device) for part in (image, words, lengths, targets[own]))
    return Batch(*parts), targets.to(world.device)


def derived_count(settings: Settings, material: Material) -> int:
    """How many examples of a batch are made from labels."""
    return int(settings.batch_size * settings.derived_share) if material.derived else 0


@torch.no_grad()
def rank_groups(
    composer: nn.Module, groups: Sequence[Group], material: Material, device: torch.device
) -> dict[str, NDArray[np.int64]]:
    """(Q,) ranks of the targets by group, from 1."""
    ranks = {}
    for group in groups:
        queries = []
        for start in range(0, len(group.triplets), _BATCH):
            asked = group.triplets[start : start + _BATCH]
            words, lengths = material.texts([join_captions(triplet.captions) for triplet in asked])
            image = material.photo_tokens([group.photos[triplet.candidate] for triplet in asked])
            queries.append(composer(image.to(device), words.to(device), lengths.to(device)).float().cpu())
        gallery = material.photo_tokens([group.photos[name] for name in group.gallery])[:, 0]
        found = torch.cat(queries).numpy()
        ranks[group.name] = rank_targets(found, gallery.numpy(), group.target_rows, group.excluded_rows)
    return ranks


def held_out_recall(composer: nn.Module, material: Material, device: torch.device) -> float:
    """What early stopping asks: the mean of R@10 and R@50, unweighted over the groups."""
    ranks = rank_groups(composer, material.validation, material, device).values()
    return float(np.mean([(recall_at_k(r, 10) + recall_at_k(r, 50)) / 2 for r in ranks]))
