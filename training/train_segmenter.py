"""Train the embedded GarmentSegmenter on exact and weak pixel labels.

The loss of a pixel is -log of the probability of all classes it may have. For a photo known to show a kind of garment,
the most confident sixth of its pixels should be of that kind.

python -m training.train_segmenter training/configs/segmenter_compact.toml
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer
from pydantic import Field, with_config
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from fashion_retrieval.config import SEGMENTER_WEIGHTS_NAME, SegmenterConfig
from fashion_retrieval.models.segmenter import GarmentSegmenter
from training.data.augment import color_jitter, draw_placement
from training.data.floors import floors, lay_down, put_in_front
from training.data.pixels import (
    CLASSES,
    EXACT,
    FOLDS,
    Photo,
    clothing_photos,
    flat_lay_photos,
    guessed_photos,
    in_fold,
    load_photos,
    product_photos,
    street_photos,
    tagged_photos,
)
from training.data.scenes import change_scenes, grain, portrait_places, repaint
from training.engine import loop
from training.engine.errors import one_line_errors
from training.engine.optimizer import OptimizerConfig
from training.engine.settings import SCHEMA, Count, Fraction, ImageSize, NonNegative, Positive, read_settings
from training.engine.weights import load_efficientnet

MEAN = STD = (0.5, 0.5, 0.5)
_LYING = "flat", "guessed"
"""Sources of one garment each with a mask: it may lie on another floor."""


@with_config(SCHEMA)
@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One TOML file."""

    data: str  # the open data pack
    output: str  # folder of the run and its weights
    architecture: str  # name that the segmenter is built by
    image_size: ImageSize  # [height, width] of its input in pixels
    train_size: ImageSize  # [height, width] in training
    optimization: OptimizerConfig
    street: Count  # photos a step with exact labels; then those of each source with weak ones
    products: Count = 0
    clothing: Count = 0
    flat: Count = 0  # photos a step of one garment with a mask, which nobody wears
    guessed: Count = 0  # photos a step of one garment whose mask a segmenter drew
    masks: str = ""  # folder of those masks, of `training.guess_masks`
    tagged: Count = 0
    weak_weight: NonNegative = 0.0  # of the loss of weak labels
    freeze: list[str] = field(default_factory=list)  # parameters whose names begin so aren't trained
    compile: bool = False
    init: str = ""  # folder of a trained segmenter to start from; without it, ImageNet weights
    blend: str = ""  # folder of another one
    blended: Fraction = 0.0  # of the weights to start from are the other one's
    zoom: Annotated[list[Positive], Field(min_length=2, max_length=2)] = field(default_factory=lambda: [0.3, 1.1])
    """Least and most of the photo's width that is seen."""
    roam: NonNegative = 0.0  # how far a close-up may lie from the photo's center; 1 is the edge
    portraits: Fraction = 0.0  # fraction of the photos that show head and chest
    scenes: Fraction = 0.0  # fraction of the photos with another background and, as often, another color
    flat_zoom: Annotated[list[Positive], Field(min_length=2, max_length=2)] = field(default_factory=lambda: [0.5, 1.4])
    floors: Fraction = 0.0  # fraction of the photos of one garment that lie on another floor
    in_front: Fraction = 0.0  # fraction of the photos with a strap or hair drawn across, twice
    fold: Annotated[int, Field(ge=-1, lt=FOLDS)] = -1  # photos with masks of this part are left out; -1 is none
    most: Count = 0  # photos of each source that are read at most; 0 reads all

    def segmenter(self) -> SegmenterConfig:
        """The part of the model's configuration that describes the segmenter."""
        size = self.image_size[0], self.image_size[1]
        return SegmenterConfig(architecture=self.architecture, image_size=size, classes=CLASSES, mean=MEAN, std=STD)


def pixel_loss(logits: Tensor, allowed: Tensor) -> Tensor:
    """-log of the summed probability of the allowed classes; mean over pixels that can't be of every class.

    Logits are (b, c, h, w); `allowed` is (b, h, w), a bit per class.
    """
    permitted = (allowed.long()[:, None] & _bits(logits)) > 0
    masked = logits.masked_fill(~permitted, float("-inf"))
    loss = logits.logsumexp(1) - masked.logsumexp(1)
    counted = ~permitted.all(1)
    return (loss * counted).sum() / counted.sum().clamp(min=1)


def presence_loss(logits: Tensor, allowed: Tensor, tags: Tensor, fraction: float = 1 / 6) -> Tensor:
    """-log of the mean probability of the tagged class over the most confident pixels that may have it.

    Photos in which fewer pixels may have it (a close-up of a face) are left out. `tags` are (b,) int64, negative for
    none; `fraction` of the pixels counts.
    """
    free = 2 ** logits.shape[1] - 1
    possible = ((allowed >> tags.clamp(min=0)[:, None, None]) % 2 == 1) & (allowed != free)
    tagged = (tags >= 0) & (possible.flatten(1).float().mean(1) >= fraction)
    if not tagged.any():
        return logits.sum() * 0
    probability = logits[tagged].softmax(1)[torch.arange(int(tagged.sum())), tags[tagged]]
    probability = (probability * possible[tagged]).flatten(1)
    confident: Tensor = probability.topk(max(1, int(fraction * probability.shape[1])), dim=1).values
    return -confident.mean(1).clamp(min=1e-4).log().mean()


def dice_loss(logits: Tensor, allowed: Tensor) -> Tensor:
    """1 - Dice per class present in exactly labeled photos; small garments count as much as large ones."""
    target = (allowed.long()[:, None] == _bits(logits)).float()
    counted = (target.sum(1, keepdim=True) > 0).float()
    probability = logits.softmax(1) * counted
    overlap = (probability * target).sum((0, 2, 3))
    total = probability.sum((0, 2, 3)) + target.sum((0, 2, 3))
    present = target.sum((0, 2, 3)) > 0
    if not present.any():
        return logits.sum() * 0
    return (1 - 2 * overlap / total.clamp(min=1))[present].mean()


def _bits(logits: Tensor) -> Tensor:
    """(c, 1, 1) int64, the bit of each class."""
    return 2 ** torch.arange(logits.shape[1], device=logits.device)[:, None, None]


def augment_pairs(
    pixels: Tensor,
    allowed: Tensor,
    exact: Tensor,
    flat: Tensor,
    bank: Tensor,
    generator: torch.Generator,
    settings: Settings,
) -> tuple[Tensor, Tensor]:
    """The same random flip, scale, shift and rotation for photos and labels; labels at a quarter of the size.

    Photos are (b, 3, H, W) uint8, `allowed` is (b, H, W) int16 with a bit per class, `exact` and `flat` (b,) bool,
    `bank` the floors for the flat ones; returns (b, 3, h, w) float32 in [0, 1] and (b, h/4, w/4) int64.
    """
    size = settings.train_size[0], settings.train_size[1]
    least, most = (torch.where(flat, a, b) for a, b in zip(settings.flat_zoom, settings.zoom, strict=True))
    placement = draw_placement(len(pixels), size, generator, (least, most), shift=0.25, roam=settings.roam)
    if settings.portraits:
        portraits = portrait_places(allowed, placement, settings.portraits, generator)
        placement = torch.where(flat[:, None, None], placement, portraits)
    grid = functional.affine_grid(placement, [len(pixels), 3, *size], align_corners=False)
    photos = functional.grid_sample(pixels.float().div_(255) - 1, grid, align_corners=False) + 1
    # grid_sample pads with 0, which allows no class; nothing is known there, so all classes are allowed.
    labels = functional.grid_sample(allowed[:, None].float(), grid, mode="nearest", align_corners=False)[:, 0].long()
    labels[labels == 0] = 2 ** len(CLASSES) - 1
    if settings.scenes:
        photos = repaint(photos, labels, settings.scenes, generator)
        photos, labels = change_scenes(photos, labels, exact & ~flat, settings.scenes * ~flat, generator)
    laid = (flat & (torch.rand(len(flat), generator=generator) < settings.floors)).nonzero().flatten()
    if len(laid):
        photos[laid], labels[laid] = lay_down(photos[laid], labels[laid], bank, generator)
    for _ in range(2):
        behind = (torch.rand(len(flat), generator=generator) < settings.in_front).nonzero().flatten()
        if len(behind):
            photos[behind], labels[behind] = put_in_front(photos[behind], labels[behind], generator)
    if settings.scenes:
        photos = grain(photos, generator)
    return color_jitter(photos, generator), labels[:, 2::4, 2::4]


def train(settings: Settings, sources: Mapping[str, tuple[int, tuple[Tensor, Tensor, Tensor]]]) -> GarmentSegmenter:
    """Run the recipe on photos in memory; each source has its number of photos a step."""
    torch.manual_seed(settings.optimization.seed)
    segmenter = GarmentSegmenter(settings.segmenter())
    if settings.init:
        segmenter.load_state_dict(_start(settings))
    else:
        load_efficientnet(segmenter.backbone)
    for name, parameter in segmenter.named_parameters():
        parameter.requires_grad_(not name.startswith(tuple(settings.freeze)))
    segmenter.train().to(memory_format=torch.channels_last)
    for module in segmenter.backbone.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    forward = torch.compile(segmenter.forward, dynamic=False) if settings.compile else segmenter.forward
    flat = torch.cat([torch.full((count,), name in _LYING) for name, (count, _) in sources.items()])
    bank = flat[:0]
    if sources.get("flat", (0,))[0]:
        bank = floors(*sources["flat"][1][:2], (settings.train_size[0], settings.train_size[1]))
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)

    def loss_fn(generator: torch.Generator, step: int) -> tuple[Tensor, dict[str, float]]:
        chosen = [
            (data, torch.randint(len(data[0]), (count,), generator=generator)) for count, data in sources.values()
        ]
        pixels, allowed, tags = (torch.cat([data[part][rows] for data, rows in chosen]) for part in range(3))
        exact = tags == EXACT
        photos, labels = augment_pairs(pixels, allowed, exact, flat, bank, generator, settings)
        logits = forward(((photos - mean) / std).contiguous(memory_format=torch.channels_last))
        pixel, dice = pixel_loss(logits[exact], labels[exact]), dice_loss(logits[exact], labels[exact])
        weak = pixel_loss(logits[~exact], labels[~exact]) + presence_loss(logits, labels, tags)
        metrics = {"pixel": pixel.item(), "dice": dice.item(), "weak": weak.item()}
        return pixel + 0.5 * dice + settings.weak_weight * weak, metrics

    loop.train(
        nn.ModuleDict({"segmenter": segmenter}), loss_fn, settings.optimization, Path(settings.output), lr_scales={}
    )
    return segmenter.eval()


def _start(settings: Settings) -> dict[str, Tensor]:
    """The weights to start from; whole numbers, which count steps, stay as they are."""
    state = load_file(Path(settings.init) / SEGMENTER_WEIGHTS_NAME)
    other = load_file(Path(settings.blend) / SEGMENTER_WEIGHTS_NAME) if settings.blend else {}
    for name, weights in other.items():
        if weights.is_floating_point():
            state[name] = torch.lerp(state[name].float(), weights.float(), settings.blended)
    return state


def _some(photos: list[Photo], settings: Settings) -> list[Photo]:
    """Photos that are not of the fold, at most `most` of them, spread evenly."""
    kept = [photo for photo in photos if not in_fold(photo, settings.fold)]
    return kept[:: max(1, math.ceil(len(kept) / settings.most))] if settings.most else kept


@one_line_errors()
def main(config: Path) -> None:
    """Train by a TOML file; the same command goes on after an interruption."""
    settings = read_settings(config, Settings)
    root = Path(settings.data)
    sources = {
        label: (count, load_photos(_some(photos(root, "train"), settings), (448, 320), root, label))
        for label, count, photos in (
            ("street", settings.street, street_photos),
            ("products", settings.products, product_photos),
            ("clothing", settings.clothing, clothing_photos),
            ("flat", settings.flat, flat_lay_photos),
            ("guessed", settings.guessed, partial(guessed_photos, masks=Path(settings.masks))),
            ("tagged", settings.tagged, tagged_photos),
        )
        if count
    }
    segmenter = train(settings, sources)
    output = Path(settings.output)
    save_file({k: v.contiguous() for k, v in segmenter.state_dict().items()}, output / SEGMENTER_WEIGHTS_NAME)
    (output / "segmenter.json").write_text(json.dumps(asdict(segmenter.config), indent=2) + "\n", encoding="utf-8")
    typer.echo(f"segmenter written to {output}")


if __name__ == "__main__":
    typer.run(main)
