"""Train a composer on frozen features and rank its targets, alike for AGCN and the composers compared with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

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
from training.recipes.agcn_data import Example, TripletDataset
from training.recipes.agcn_settings import Settings
from training.recipes.losses import composition_loss, contrast_loss

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
    others = torch.arange(len(gallery) - dataset.others, len(gallery), device=env.device)

    def loss_fn(rng: torch.Generator, step: int) -> tuple[Tensor, dict[str, float]]:
        batch = sample_batch(settings, dataset, step, rng, env)
        targets, scale = gallery[batch.targets[env.rows(len(batch.targets))]], temperature()
        if isinstance(composer, Baseline):
            query, extra = composer.learn(view(*batch.tokens), targets, scale)
        else:
            query, extra = composer(*batch.tokens), scale.new_zeros(())
        with torch.autocast(env.device.type, enabled=False):
            queries = env.all_gather(query.float())
            loss = composition_loss(
                queries, gallery, batch.targets, scale, settings.negatives, batch.also_right, others
            )
        for name, tokens in batch.wrong.items():
            losses = query.new_zeros(len(query), dtype=torch.float32)
            if tokens is not None:
                ahead = query.float()[batch.asked] - composer(*tokens).float()
                ahead = scale * (ahead * targets[batch.asked]).sum(-1)
                losses = losses.index_copy(0, batch.asked, contrast_loss(ahead))
            loss = loss + getattr(settings, name) * env.all_gather(losses).sum() / batch.asked_of_all
        return loss + extra, {"scale": scale.item(), "extra": extra.item()}

    validation = Validation(
        score=lambda: held_out_recall(composer, dataset, env.device),
        every=settings.validate_every,
        patience=settings.patience,
    )
    written = _counts(settings, dataset)[0]
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


Tokens = tuple[Tensor, Tensor, Tensor]
"""Tokens of photos (b, 1 + k, d), tokens of texts (b, s, d), and the texts' lengths (b,) int64."""


class Batch(NamedTuple):
    """This process's part of a batch that all processes draw alike, and the targets of the whole batch."""

    tokens: Tokens
    targets: Tensor  # (B,) int64 rows of the gallery, of the whole batch
    also_right: Tensor  # (B, M) bool: photos of the gallery that answer too, so that they are no negatives
    asked: Tensor  # (a,) int64 rows of this part whose texts say only what changes: asked with wrong tokens too
    asked_of_all: int  # how many such rows the whole batch has
    wrong: dict[str, Tokens | None]  # by setting: `asked` with photos, or texts, of other such rows; None for no row


def sample_batch(
    settings: Settings, dataset: TripletDataset, step: int, rng: torch.Generator, env: DistributedEnv
) -> Batch:
    """Draw a batch of all sources, on the device of the process."""
    chosen: list[Example] = []
    asked: list[int] = []
    for source, count in zip(dataset.sources, _counts(settings, dataset), strict=True):
        total = len(source.examples)
        if settings.sampling == "epoch":
            drawn = epoch_rows(total, count, step, settings.optimization.seed)
        else:
            drawn = torch.randint(total, (count,), generator=rng)
        asked += range(len(chosen), len(chosen) + count) if source.needs_photo else ()
        chosen += [source.examples[row] for row in drawn.tolist()]
    texts = [training_caption(example.captions, rng) for example in chosen]
    targets = [_one(example.right, rng) for example in chosen]
    also_right = torch.zeros(len(chosen), len(dataset.gallery), dtype=torch.bool)
    for row, (example, target) in enumerate(zip(chosen, targets, strict=True)):
        also_right[row, [other for other in example.right if other != target]] = True

    def tokens(photos: Sequence[int], words: Sequence[int]) -> Tokens:
        text, lengths = dataset.texts([texts[row] for row in words])
        image = dataset.tokens[[chosen[row].reference for row in photos]].float()
        return image.to(env.device), text.to(env.device), lengths.to(env.device)

    own = range(len(chosen))[env.rows(len(chosen))]
    pairs = [(row, other) for row, other in zip(asked, asked[1:] + asked[:1], strict=True) if row in own]
    rows, others = [row for row, _ in pairs], [other for _, other in pairs]
    return Batch(
        tokens=tokens(own, own),
        targets=torch.tensor(targets, device=env.device),
        also_right=also_right.to(env.device),
        asked=torch.tensor([row - own.start for row in rows], dtype=torch.int64, device=env.device),
        asked_of_all=len(asked),
        wrong={
            name: tokens(*given) if rows else None
            for name, given in (("wrong_photo", (others, rows)), ("wrong_text", (rows, others)))
            if asked and getattr(settings, name)
        },
    )


def _counts(settings: Settings, dataset: TripletDataset) -> list[int]:
    """How many examples of a batch come from each source; the first has what the others leave."""
    others = [int(settings.batch_size * source.share) for source in dataset.sources[1:]]
    return [settings.batch_size - sum(others), *others]


def _one(rows: Sequence[int], rng: torch.Generator) -> int:
    return rows[0] if len(rows) == 1 else rows[int(torch.randint(len(rows), (), generator=rng))]


@torch.no_grad()
def rank_group(composer: nn.Module, group: Group, dataset: TripletDataset, device: torch.device) -> NDArray[np.int64]:
    """Ranks of the targets, from 1: (Q,) int64."""
    queries = []
    for start in range(0, len(group.triplets), _BATCH):
        triplets = group.triplets[start : start + _BATCH]
        words, lengths = dataset.texts([join_captions(triplet.captions) for triplet in triplets])
        image = dataset.photo_tokens([group.photos[triplet.candidate] for triplet in triplets])
        queries.append(composer(image.to(device), words.to(device), lengths.to(device)).float().cpu())
    gallery = dataset.embeddings([group.photos[name] for name in group.gallery])
    found = torch.cat(queries).numpy()
    return rank_targets(found, gallery.numpy(), group.target_rows, group.excluded_rows)


def held_out_recall(composer: nn.Module, dataset: TripletDataset, device: torch.device) -> float:
    """The score of early stopping: the mean of R@10 and R@50, unweighted over the groups of all sets."""
    ranks = [rank_group(composer, group, dataset, device) for group in dataset.validation]
    return float(np.mean([(recall_at_k(r, 10) + recall_at_k(r, 50)) / 2 for r in ranks]))
