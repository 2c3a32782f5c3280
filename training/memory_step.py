"""A step of RaF-CLIP's recipe on the CPU: what it holds, and what it would hold with another batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from fashion_retrieval.config import ENCODER_CONFIG_NAME
from fashion_retrieval.taxonomy import Taxonomy
from training.data.texts import Vocabulary
from training.engine.grad_cache import embed_in_parts
from training.engine.loop import autocast
from training.engine.weights import load_encoder
from training.memory_saved import Peak, Saved, on_line, saved_by
from training.random_start import random_encoder
from training.recipes.losses import attribute_loss, category_loss, raf_clip_loss, wrong_pairs
from training.recipes.raf_clip_settings import Settings
from training.train_raf_clip import prepare_trainable


@dataclass(frozen=True, slots=True)
class Step:
    """A step's work.

    Attributes:
        garments: The batch.
        pictures: Two of each garment with a mask.
        texts: That a trainable text tower reads: as if all of the batch were different.
        length: Tokens of the longest.
    """

    garments: int
    pictures: int
    texts: int
    length: int


class Recipe:
    """An encoder, as its recipe trains it."""

    def __init__(self, settings: Settings, architecture: str) -> None:
        """Load the recipe's start, or make the architecture with random weights where it is not there."""
        start = Path(settings.init[0])
        self.start = str(start) if (start / ENCODER_CONFIG_NAME).is_file() else architecture
        self.encoder = load_encoder(start) if self.start == str(start) else random_encoder(architecture)
        self.settings = settings
        prepare_trainable(self.encoder, replace(settings, gradient_checkpointing=False))
        vocabulary = Vocabulary(Taxonomy.load(settings.taxonomy))
        self.groups = len(vocabulary.groups)
        self.known_texts = len(vocabulary.texts)
        self.length = int(self.encoder.tokenizer(vocabulary.texts).argmax(1).max()) + 1

    def step(self, garments: int) -> Step:
        """Of a batch in which as many garments have a mask as in the recipe's."""
        settings = self.settings
        batch = settings.whole_garments + settings.masked_garments + settings.extra_garments
        texts = self.known_texts if settings.vocabulary_weight else min(self.known_texts, garments * (1 + self.groups))
        return Step(garments, garments * settings.pictures // batch, texts * (not settings.lock_text), self.length)

    def pixels(self, count: int) -> Tensor:
        """(count, 3, h, w) float32."""
        return torch.zeros(count, 3, *self.settings.image_size(10**9))

    def tokens(self, count: int) -> Tensor:
        """(count, s) int64: texts as long as the longest."""
        tokens = torch.ones(count, self.length, dtype=torch.int64)
        tokens[:, -1] = 49407  # the end of a text, by which its length is found
        return tokens

    def embed_images(self, pixels: Tensor) -> Tensor:
        """As the recipe does."""
        return self.encoder.encode_image((pixels - 0.5) / 0.25)

    def embed_texts(self, tokens: Tensor, micro_batch: int) -> Tensor:
        """As the recipe does; those of a locked tower lie ready."""
        if self.settings.lock_text:
            return torch.zeros(1, self.encoder.embedding_dim)
        return embed_in_parts(self.encoder.encode_text, tokens, micro_batch)

    def loss(self, image: Tensor, text: Tensor, garments: int) -> Tensor:
        """Of features of all pictures (p, d) and texts (t, d)."""
        ids = torch.arange(garments)[:, None].expand(-1, self.groups) % max(1, len(text))
        scale = self.encoder.clip.logit_scale.exp()
        category = category_loss(image[:garments], text[ids[:, 0]], scale, wrong_pairs(ids[:, 0], "identity"))
        attribute = attribute_loss(image[-garments:], text[ids], scale, ids, "identity")
        return raf_clip_loss(category, attribute, self.settings.alpha)

    def measured(self, batches: tuple[int, ...]) -> tuple[dict[int, Saved], dict[int, Saved]]:
        """What the image tower and the text tower save, by pictures and texts."""
        encoder, amp = self.encoder, self.settings.optimization.amp

        def of(embed: Callable[[Tensor], Tensor], batch: Tensor, tower: nn.Module) -> Saved:
            with autocast(amp, "cpu"):
                return saved_by(lambda: embed(batch), tower)

        images = {n: of(self.embed_images, self.pixels(n), encoder.clip) for n in batches}
        if self.settings.lock_text:
            return images, dict.fromkeys(batches, Saved(0))
        return images, {n: of(encoder.encode_text, self.tokens(n), encoder.clip) for n in batches}

    def of_loss(self, step: Step) -> float:
        """What the losses save: logits and their softmax, at the real size."""
        width = self.encoder.embedding_dim
        image = torch.zeros(step.pictures, width, requires_grad=True)
        text = torch.zeros(max(1, step.texts), width, requires_grad=True)
        return saved_by(lambda: self.loss(image, text, step.garments), nn.Module()).plain

    def always(self, step: Step) -> dict[str, float]:
        """What a run holds at all times."""
        weights = sum(map(_bytes, self.encoder.clip.state_dict().values()))
        averaged = weights if self.settings.optimization.ema else 0
        height, width = self.settings.image_size(10**9)
        pictures = step.pictures * 3 * height * width * 4
        return {"weights": weights, "adamw": 2 * sum(self.gradients()), "ema": averaged, "pictures": pictures}

    def gradients(self) -> list[int]:
        """Of each parameter."""
        return [_bytes(parameter) for parameter in self.encoder.clip.parameters() if parameter.requires_grad]

    def measured_peak(self, step: Step, *, checkpointing: bool, micro_batch: int) -> int:
        """The most that tensors of a step's forward and backward pass hold, beside what is always there."""
        clip = self.encoder.clip
        clip.set_grad_checkpointing(checkpointing)
        clip.zero_grad(set_to_none=True)
        pixels, tokens = self.pixels(step.pictures), self.tokens(step.texts)
        with Peak() as peak:
            with autocast(self.settings.optimization.amp, "cpu"):
                image = embed_in_parts(self.embed_images, pixels, micro_batch)
                text = self.embed_texts(tokens, micro_batch)
                loss = self.loss(image, text, step.garments)
            loss.backward()  # type: ignore[no-untyped-call]
        clip.zero_grad(set_to_none=True)
        clip.set_grad_checkpointing(False)
        most: int = peak.most
        return most


@dataclass(frozen=True, slots=True)
class Moments:
    """Bytes that a step holds at its two fullest moments, beside what is always there."""

    end_of_forward: float
    late_in_backward: float

    @property
    def most(self) -> float:
        """At the fuller one."""
        return max(self.end_of_forward, self.late_in_backward)


def moments(
    recipe: Recipe, towers: Sequence[Mapping[int, Saved]], step: Step, *, checkpointing: bool, micro_batch: int
) -> Moments:
    """Compute a step from what small batches save in the image tower and the text tower."""
    counts = step.pictures, step.texts
    gradients, loss = recipe.gradients(), recipe.of_loss(step)
    copies = sum(on_line(tower, 0).plain for tower in towers)
    if micro_batch:
        parts = [on_line(tower, min(micro_batch, count)) for tower, count in zip(towers, counts, strict=True)]
        part = max(saved.checkpointed if checkpointing else saved.plain for saved in parts)
        return Moments(copies + loss, sum(gradients) + max(gradients) + part)
    whole = [on_line(tower, count) for tower, count in zip(towers, counts, strict=True)]
    if checkpointing:
        block = max(max(saved.blocks, default=0) for saved in whole)
        kept = sum(saved.checkpointed for saved in whole)
        return Moments(copies + kept - block + loss, max(kept, sum(gradients) + block))
    return Moments(sum(saved.plain for saved in whole) + loss, sum(gradients) + max(gradients))


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
