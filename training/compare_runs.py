"""One run of a comparison: training on cached features, and ranks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from fashion_retrieval.models.encoder import Encoder
from training.composers.base import Baseline
from training.data.features import image_features
from training.data.triplets import ComposedSet, Group, join_captions, training_caption
from training.loop import Validation, optimise
from training.losses import composition_loss
from training.metrics import rank_targets, recall_at_k
from training.train_agcn import Material, Settings, Temperature

_BATCH = 128


class TextTokens:
    """Tokens of texts, each encoded once and kept as float16, as those of photos are."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.known: dict[str, Tensor] = {}

    def __call__(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """(b, s, d) float32, zeros behind each text's end, and (b,) int64 lengths, on the CPU."""
        new = [text for text in dict.fromkeys(texts) if text not in self.known]
        if new:
            device = next(self.encoder.parameters()).device
            with torch.no_grad(), torch.autocast(device.type, enabled=False):
                words, lengths = self.encoder.text_tokens(self.encoder.tokenize(new).to(device))
            rows = zip(new, words.half().cpu(), lengths.tolist(), strict=True)
            self.known.update({text: row[:length].clone() for text, row, length in rows})
        found = [self.known[text].float() for text in texts]
        return pad_sequence(found, batch_first=True), torch.tensor([len(row) for row in found])


@dataclass(frozen=True, slots=True)
class Bank:
    """The frozen features that all composers see.

    Attributes:
        material: What is trained on.
        tokens: (N, 1 + k, d) float16, of every photo of training and evaluation.
        rows: Row by photo.
        texts: Tokens of texts.
        device: Where composers run.
    """

    material: Material
    tokens: Tensor
    rows: dict[Path, int]
    texts: TextTokens
    device: torch.device


def with_photos(bank: Bank, sets: Sequence[ComposedSet], recipe: Settings) -> Bank:
    """With the photos of the evaluation."""
    groups = [group for one in sets for group in one.groups]
    photos = dict.fromkeys(photo for group in groups for photo in group.photos.values())
    new = [photo for photo in photos if photo not in bank.rows]
    if not new:
        return bank
    tokens = image_features(bank.texts.encoder, new, Path(recipe.cache), device=bank.device)
    rows = bank.rows | {photo: len(bank.tokens) + row for row, photo in enumerate(new)}
    return replace(bank, tokens=torch.cat([bank.tokens, tokens]), rows=rows)


def fit(composer: nn.Module, recipe: Settings, bank: Bank, folder: Path) -> dict[str, Any]:
    """Train in place by `train_agcn`'s recipe, and what a composer adds to its loss; what was learned of the run.

    All chance of a step, dropout too, comes from the seed and the step.
    """
    material = bank.material
    temperature = Temperature(recipe.temperature).to(bank.device)
    gallery = functional.normalize(bank.tokens[material.gallery, 0].float(), dim=-1).to(bank.device)
    place = {int(row): index for index, row in enumerate(material.gallery)}
    from_labels = round(recipe.batch_size * recipe.derived_share) if material.derived else 0

    def loss_fn(chance: torch.Generator, step: int) -> tuple[Tensor, dict[str, float]]:
        torch.manual_seed(int(torch.randint(2**62, (), generator=chance)))
        chosen = [
            pool[int(i)]
            for pool, count in ((material.triplets, recipe.batch_size - from_labels), (material.derived, from_labels))
            for i in torch.randint(max(1, len(pool)), (count,), generator=chance)
        ]
        words, lengths = bank.texts([training_caption(triplet.captions, chance) for *_, triplet in chosen])
        image = bank.tokens[torch.tensor([bank.rows[candidate] for candidate, *_ in chosen])].float()
        targets = torch.tensor([place[bank.rows[target]] for _, target, _ in chosen]).to(bank.device)
        image, words, lengths = (part.to(bank.device) for part in (image, words, lengths))
        scale = temperature()
        if isinstance(composer, Baseline):
            query, extra = composer.learn(image, words, lengths, gallery[targets], scale)
        else:
            query, extra = composer(image, words, lengths), scale.new_zeros(())
        loss = composition_loss(query, gallery, targets, scale, recipe.negatives)
        return loss + extra, {"scale": scale.item(), "extra": extra.item()}

    validation = Validation(
        score=lambda: held_out_recall(composer, bank), every=recipe.validate_every, patience=recipe.patience
    )
    optimise(
        nn.ModuleDict({"composer": composer.train(), "temperature": temperature}),
        loss_fn,
        recipe.optimisation,
        folder,
        lr_scales=recipe.lr_scales,
        validation=validation if recipe.validate_every and material.validation else None,
    )
    composer.eval()
    return _told_by(folder / "log.jsonl")


def _told_by(log: Path) -> dict[str, Any]:
    """Steps run, the step and score of the weights that were kept, and the median time of a step without measuring."""
    rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    scored = [row for row in rows if "score" in row]
    best = max(scored, key=lambda row: row["score"], default=rows[-1])
    seconds = [row["seconds"] for row in rows if "score" not in row] or [row["seconds"] for row in rows]
    return {
        "steps": len(rows),
        "best_step": best["step"] + 1,
        "held_out_recall": best.get("score"),
        "seconds_per_step": median(seconds),
    }


@torch.no_grad()
def rank_groups(composer: nn.Module, groups: Sequence[Group], bank: Bank) -> dict[str, NDArray[np.int64]]:
    """(Q,) ranks of the targets by group."""
    ranks = {}
    for group in groups:
        queries = []
        for start in range(0, len(group.triplets), _BATCH):
            asked = group.triplets[start : start + _BATCH]
            words, lengths = bank.texts([join_captions(triplet.captions) for triplet in asked])
            image = bank.tokens[torch.tensor([bank.rows[group.photos[t.candidate]] for t in asked])].float()
            queries.append(composer(image.to(bank.device), words.to(bank.device), lengths.to(bank.device)).cpu())
        gallery = bank.tokens[torch.tensor([bank.rows[group.photos[name]] for name in group.gallery]), 0].float()
        asked_rows = torch.cat(queries).numpy()
        ranks[group.name] = rank_targets(asked_rows, gallery.numpy(), group.target_rows, group.excluded_rows)
    return ranks


def held_out_recall(composer: nn.Module, bank: Bank) -> float:
    """What early stopping asks: the mean of R@10 and R@50, unweighted over the groups."""
    ranks = rank_groups(composer, bank.material.validation, bank).values()
    return float(np.mean([(recall_at_k(r, 10) + recall_at_k(r, 50)) / 2 for r in ranks]))
