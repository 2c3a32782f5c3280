"""Train a composer on frozen features and rank its targets, alike for AGCN and the composers compared with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from training.composers.base import Baseline, view
from training.data.batches import epoch_rows
from training.data.triplets import Group, join_captions, training_caption
from training.engine.distributed import DistributedEnv
from training.engine.loop import Validation, train
from training.evaluation.metrics import rank_targets, recall_at_k
from training.recipes.agcn_data import TripletDataset
from training.recipes.agcn_settings import Settings
from training.recipes.losses import composition_loss

_BATCH = 128


class Temperature(nn.Module):
    """The learned tau' of eq. (14)."""

    def __init__(self, initial: float) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(-float(np.log(initial))))

    def forward(self) -> Tensor:
        """The factor on the cosines, at most 100."""
        return self.log_scale.clamp(max=4.6052).exp()


def fit(composer: nn.Module, settings: Settings, dataset: TripletDataset, folder: Path, env: DistributedEnv) -> None:
    """Train in place, from the last checkpoint in `folder` if there is one; the composer ends in eval mode.

    The processes split each batch; the negatives of every query are the targets of the whole batch.
    """
    temperature = Temperature(settings.temperature).to(env.device)
    gallery = dataset.gallery.to(env.device)
    written = settings.batch_size - derived_count(settings, dataset)

    def loss_fn(rng: torch.Generator, step: int) -> tuple[Tensor, dict[str, float]]:
        tokens, targets = sample_batch(settings, dataset, step, rng, env)
        scale = temperature()
        if isinstance(composer, Baseline):
            query, extra = composer.learn(view(*tokens), gallery[targets[env.rows(len(targets))]], scale)
        else:
            query, extra = composer(*tokens), scale.new_zeros(())
        with torch.autocast(env.device.type, enabled=False):
            loss = composition_loss(env.all_gather(query.float()), gallery, targets, scale, settings.negatives)
        return loss + extra, {"scale": scale.item(), "extra": extra.item()}

    validation = Validation(
        score=lambda: held_out_recall(composer, dataset, env.device),
        every=settings.validate_every,
        patience=settings.patience,
    )
    train(
        nn.ModuleDict({"composer": composer.train(), "temperature": temperature}),
        loss_fn,
        settings.optimization.in_steps(len(dataset.triplets) / written),
        folder,
        lr_scales=settings.lr_scales,
        validation=validation if settings.validate_every and dataset.validation else None,
        env=env,
        tracking=settings.tracking,
        settings=asdict(settings),
    )
    composer.eval()


def sample_batch(
    settings: Settings, dataset: TripletDataset, step: int, rng: torch.Generator, env: DistributedEnv
) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
    """This process's part of a batch that all processes draw alike, and the targets of the whole batch.

    The part is tokens of the photos, (b, 1 + k, d), tokens of the texts, (b, s, d), and the texts' lengths, (b,) int64;
    the targets are (b,) int64 rows of the gallery.
    """
    derived = derived_count(settings, dataset)
    pools = [(dataset.triplets, settings.batch_size - derived)] + [(dataset.derived, derived)] * (derived > 0)
    chosen = []
    for pool, count in pools:
        if settings.sampling == "epoch":
            rows = epoch_rows(len(pool), count, step, settings.optimization.seed)
        else:
            rows = torch.randint(len(pool), (count,), generator=rng)
        chosen += [pool[row] for row in rows.tolist()]
    texts = [training_caption(example.captions, rng) for example in chosen]
    targets = torch.tensor([example.target for example in chosen])
    own = env.rows(len(chosen))
    words, lengths = dataset.texts(texts[own])
    image = dataset.tokens[[example.reference for example in chosen[own]]].float()
    return (image.to(env.device), words.to(env.device), lengths.to(env.device)), targets.to(env.device)


def derived_count(settings: Settings, dataset: TripletDataset) -> int:
    """Number of examples of a batch that are made from labels."""
    return int(settings.batch_size * settings.derived_share) if dataset.derived else 0


@torch.no_grad()
def rank_groups(
    composer: nn.Module, groups: Sequence[Group], dataset: TripletDataset, device: torch.device
) -> dict[str, NDArray[np.int64]]:
    """Ranks of the targets, from 1, by group: (Q,) int64."""
    ranks = {}
    for group in groups:
        queries = []
        for start in range(0, len(group.triplets), _BATCH):
            triplets = group.triplets[start : start + _BATCH]
            words, lengths = dataset.texts([join_captions(triplet.captions) for triplet in triplets])
            image = dataset.photo_tokens([group.photos[triplet.candidate] for triplet in triplets])
            queries.append(composer(image.to(device), words.to(device), lengths.to(device)).float().cpu())
        gallery = dataset.photo_tokens([group.photos[name] for name in group.gallery])[:, 0]
        found = torch.cat(queries).numpy()
        ranks[group.name] = rank_targets(found, gallery.numpy(), group.target_rows, group.excluded_rows)
    return ranks


def held_out_recall(composer: nn.Module, dataset: TripletDataset, device: torch.device) -> float:
    """The score of early stopping: the mean of R@10 and R@50, unweighted over the groups."""
    ranks = rank_groups(composer, dataset.validation, dataset, device).values()
    return float(np.mean([(recall_at_k(r, 10) + recall_at_k(r, 50)) / 2 for r in ranks]))
