"""The composer on the frozen features of an encoder (AGCN), or one of its ablations.

python -m training.train_agcn training/configs/agcn_compact.toml
python -m training.train_agcn training/configs/agcn_compact.toml --variant only_text
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
import typer
from torch import Tensor, nn
from torch.nn import functional

from fashion_retrieval import FashionModel, checkpoint
from fashion_retrieval.checkpoint import Bundle
from fashion_retrieval.config import ComposerConfig, ModelConfig
from fashion_retrieval.errors import ConfigError
from fashion_retrieval.hub import resolve
from fashion_retrieval.models.composer import Composer
from fashion_retrieval.models.encoder import Encoder
from training.data.derived import derive, read_products
from training.data.fashioniq import read_fashioniq
from training.data.features import image_features
from training.data.pairs import read_pairs
from training.data.triplets import ComposedSet, Group, Triplet, join_captions, training_caption
from training.loop import Optimisation, Validation, generator, optimise, read_settings
from training.losses import composition_loss
from training.metrics import rank_targets, recall_at_k

Negatives = Literal["batch", "gallery"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Size of the composer; see `ComposerConfig`."""

    width: int
    depth: int
    heads: int
    hidden: int
    dropout: float = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One TOML file."""

    data: str
    source: Literal["pairs", "fashioniq"]
    model: str
    """Whose encoder: a model id or folder. Training writes it with the composer into `output`/model."""
    output: str
    cache: str
    composer: Shape
    optimisation: Optimisation
    variant: str = "agcn"
    batch_size: int = 128
    temperature: float = 0.07
    """Start of the learned tau': cosines are divided by it."""
    negatives: Negatives = "batch"
    """Which other photos a target is told from: the targets of the batch (eq. 14), or all of the training gallery."""
    derived: int = 0
    """Triplets made from labels (`training.data.derived`)."""
    derived_share: float = 0.0
    """Part of each batch that they are."""
    pseudo_labels: str = ""
    held_out: float = 0.0
    """Part of the training triplets kept for early stopping; FashionIQ has its val split for that."""
    validate_every: int = 0
    patience: int = 0
    lr_scales: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Material:
    """Everything training looks at; rows are those of `tokens`.

    Attributes:
        tokens: (N, 1 + k, d) float16 of every photo.
        rows: Row by photo.
        triplets: With the path of the candidate and of the target.
        derived: Likewise; may be empty.
        gallery: (M,) int64: rows of the photos that targets are told from.
        validation: Groups that early stopping asks, in galleries of their own.
    """

    tokens: Tensor
    rows: dict[Path, int]
    triplets: list[tuple[Path, Path, Triplet]]
    derived: list[tuple[Path, Path, Triplet]]
    gallery: Tensor
    validation: tuple[Group, ...]


class Temperature(nn.Module):
    """The learned tau' of eq. (14)."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(-float(np.log(start))))

    def forward(self) -> Tensor:
        """The factor on the cosines, at most 100."""
        return self.log_scale.clamp(max=4.6052).exp()


def load_material(settings: Settings, encoder: Encoder, device: torch.device) -> Material:
    """Read the triplets and encode their photos, or take their features from the cache."""
    root = Path(settings.data)
    if settings.source == "fashioniq":
        train = read_fashioniq(root, "train", protocol="val_split")
        validation = read_fashioniq(root, "val", protocol="original").groups
    else:
        train = read_pairs(root, "train")
        train, validation = _split(train, settings.held_out)
    derived: list[Triplet] = []
    if settings.derived and settings.source == "pairs":
        known = read_products(root, Path(settings.pseudo_labels) if settings.pseudo_labels else None)
        derived = derive(known, settings.derived, generator(settings.optimisation.seed))
    groups = (*train.groups, *validation)
    photos = list(dict.fromkeys(group.photos[name] for group in groups for name in group.photos))
    rows = {photo: row for row, photo in enumerate(photos)}
    where = {name: path for group in train.groups for name, path in group.photos.items()}
    gallery = [rows[group.photos[name]] for group in train.groups for name in group.gallery]
    return Material(
        image_features(encoder, photos, Path(settings.cache), device=device),
        rows,
        [(g.photos[t.candidate], g.photos[t.target], t) for g in train.groups for t in g.triplets],
        [(where[t.candidate], where[t.target], t) for t in derived],
        torch.tensor(list(dict.fromkeys(gallery))),
        validation,
    )


def _split(data: ComposedSet, share: float) -> tuple[ComposedSet, tuple[Group, ...]]:
    """Keep a share of each group's targets, with the triplets that ask for them, from training."""
    if not share:
        return data, ()
    kept, asked = [], []
    for group in data.groups:
        targets = sorted({t.target for t in group.triplets}, key=lambda name: zlib.crc32(name.encode()))
        held = set(targets[: math.ceil(share * len(targets))])
        kept.append(replace(group, triplets=tuple(t for t in group.triplets if t.target not in held)))
        asked.append(replace(group, triplets=tuple(t for t in group.triplets if t.target in held)))
    if not all(group.triplets for group in kept):
        raise ConfigError(f"held_out must leave triplets to train on in every group, got {share}; make it smaller")
    return replace(data, groups=tuple(kept)), tuple(asked)


def compose(composer: Composer, encoder: Encoder, tokens: Tensor, texts: Sequence[str]) -> Tensor:
    """Reference tokens (b, 1 + k, d) and texts -> (b, d) queries, L2-normalised."""
    device = next(encoder.parameters()).device
    with torch.no_grad():
        words, lengths = encoder.text_tokens(encoder.tokenize(texts).to(device))
    query: Tensor = composer(tokens.float().to(device), words, lengths)
    return query


def recall(composer: Composer, encoder: Encoder, material: Material) -> float:
    """The mean of R@10 and R@50, unweighted over the groups."""
    scores = []
    for group in material.validation:
        references = torch.tensor([material.rows[group.photos[t.candidate]] for t in group.triplets])
        texts = [join_captions(t.captions) for t in group.triplets]
        queries = [
            compose(composer, encoder, material.tokens[references[s : s + 128]], texts[s : s + 128]).cpu()
            for s in range(0, len(texts), 128)
        ]
        rows = torch.tensor([material.rows[group.photos[name]] for name in group.gallery])
        gallery = material.tokens[rows, 0].float()
        ranks = rank_targets(torch.cat(queries).numpy(), gallery.numpy(), group.target_rows, group.excluded_rows)
        scores.append((recall_at_k(ranks, 10) + recall_at_k(ranks, 50)) / 2)
    return float(np.mean(scores))


def train(settings: Settings, bundle: Bundle) -> Composer:
    """Run the recipe and return the composer with its best weights."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(settings.optimisation.seed)
    encoder = bundle.encoder.to(device).eval().requires_grad_(False)
    shape = ComposerConfig(
        embedding_dim=encoder.embedding_dim,
        variant=settings.variant,
        encoder=encoder.fingerprint,
        **asdict(settings.composer),
    )
    composer = Composer(shape).to(device)
    if settings.variant == "sum":
        return composer.eval()
    material = load_material(settings, encoder, device)
    temperature = Temperature(settings.temperature).to(device)
    gallery = functional.normalize(material.tokens[material.gallery, 0].float(), dim=-1).to(device)
    place = {int(row): index for index, row in enumerate(material.gallery)}
    from_labels = round(settings.batch_size * settings.derived_share) if material.derived else 0

    def loss_fn(chance: torch.Generator, step: int) -> tuple[Tensor, dict[str, float]]:
        torch.manual_seed(int(torch.randint(2**62, (), generator=chance)))  # dropout, too, depends on the step alone
        chosen = [
            pool[int(i)]
            for pool, count in ((material.triplets, settings.batch_size - from_labels), (material.derived, from_labels))
            for i in torch.randint(max(1, len(pool)), (count,), generator=chance)
        ]
        texts = [training_caption(triplet.captions, chance) for *_, triplet in chosen]
        references = torch.tensor([material.rows[candidate] for candidate, *_ in chosen])
        targets = torch.tensor([place[material.rows[target]] for _, target, _ in chosen])
        query = compose(composer, encoder, material.tokens[references], texts)
        loss = composition_loss(query, gallery, targets.to(device), temperature(), settings.negatives)
        return loss, {"scale": temperature().item()}

    validation = Validation(
        score=lambda: recall(composer, encoder, material), every=settings.validate_every, patience=settings.patience
    )
    modules = nn.ModuleDict({"composer": composer.train(), "temperature": temperature})
    optimise(
        modules,
        loss_fn,
        settings.optimisation,
        Path(settings.output),
        lr_scales=settings.lr_scales,
        validation=validation if settings.validate_every and material.validation else None,
    )
    return composer.eval()


def main(
    config: Path, variant: Annotated[str, typer.Option(help="One of Table 5's instead of the config's.")] = ""
) -> None:
    """Train by a TOML file; the same command goes on after an interruption."""
    settings = read_settings(config, Settings)
    if variant:
        settings = replace(settings, variant=variant, output=f"{settings.output}_{variant}")
    bundle = checkpoint.load(resolve(settings.model))
    composer = train(settings, bundle).cpu()
    card = replace(bundle.config or ModelConfig(name=settings.model), composer=composer.config)
    joined = replace(bundle, encoder=bundle.encoder.cpu(), composer=composer, config=card)
    folder = FashionModel(joined, model_id=card.name, device="cpu").save_pretrained(Path(settings.output) / "model")
    typer.echo(f"model with its composer written to {folder}")


if __name__ == "__main__":
    typer.run(main)
