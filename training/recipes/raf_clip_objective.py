"""RaF-CLIP's loss of one step: embeddings of crops against the texts of their garments."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from fashion_retrieval.models.encoder import Encoder
from training.data.augment import apply_changes, draw_changes
from training.data.batches import Batch
from training.data.crops import Crops
from training.data.cuts import cut_chances, draw_cuts, extents, refit
from training.data.manifest import Sample
from training.data.texts import LabelTable, TextEmbeddingCache
from training.engine.distributed import DistributedEnv
from training.engine.grad_cache import embed_in_parts
from training.recipes.losses import attribute_loss, category_loss, raf_clip_loss, vocabulary_loss, wrong_pairs
from training.recipes.raf_clip_settings import Settings

_MAX_LOGIT_SCALE = 4.6052
"""Cosines are multiplied by at most exp(4.6052) = 100, as CLIP's are."""


class Objective:
    """The loss of a batch; each process embeds its part of the crops and texts, and all gather the whole."""

    def __init__(
        self,
        encoder: Encoder,
        labels: LabelTable,
        texts: TextEmbeddingCache,
        crops: Crops,
        settings: Settings,
        env: DistributedEnv,
        samples: Sequence[Sample],
    ) -> None:
        self.encoder, self.labels, self.texts, self.crops = encoder, labels, texts, crops
        self.settings, self.env = settings, env
        if settings.cuts:
            self.chances = cut_chances(samples, labels.states, labels.vocabulary.taxonomy)
            size = settings.cache_size[0], settings.cache_size[1]
            self.extents = extents(samples, crops, size, self.chances.any(1))
        visual = encoder.clip.visual
        self.visual = torch.compile(visual, dynamic=False) if settings.compile else visual
        self.mean, self.std = (
            torch.tensor(values, device=env.device).view(3, 1, 1)
            for values in (encoder.preprocess_config.mean, encoder.preprocess_config.std)
        )

    def __call__(self, batch: Batch, step: int, rng: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """The loss, and its parts by name."""
        garments, weight = batch.garments, self.settings.vocabulary_weight
        cuts, parts = self._cuts(garments, rng)
        crops, masked = batch.by_garment(self.embed_crops(batch.crop_rows, batch.of_crops(parts), step, rng))
        scale = self.encoder.clip.logit_scale.clamp(max=_MAX_LOGIT_SCALE).exp()
        category_ids, attribute_ids = self.labels.texts_of(garments, cuts)
        choices = self._choices(garments, cuts, rng) if weight else {}
        prompts = (ids for ids, _ in choices.values())
        category_text, attribute_text, *texts = self.texts.embed(category_ids, attribute_ids.clamp(min=0), *prompts)

        wrong = wrong_pairs(category_ids, self.settings.targets).to(self.env.device)
        l_c = category_loss(crops, category_text, scale, wrong)
        l_a = attribute_loss(masked, attribute_text, scale, attribute_ids, self.settings.targets)
        loss = raf_clip_loss(l_c, l_a, self.settings.alpha)
        metrics = {"L_c": l_c.item(), "L_a": l_a.item(), "scale": scale.item()}
        if not weight:
            return loss, metrics

        terms = {}
        for (name, (_, target)), text in zip(choices.items(), texts, strict=True):
            image = crops if name in ("category", "color") else masked
            terms[name] = vocabulary_loss(image, text, scale, target.to(self.env.device), self.settings.smoothing)
        metrics |= {f"V_{name}": term.item() for name, term in terms.items()}
        of_category = (terms.pop("category") + terms.pop("color")) / 2
        l_v = raf_clip_loss(of_category, torch.stack([*terms.values()]).mean(), self.settings.alpha)
        return loss + weight * l_v, metrics

    def embed_crops(self, crop_rows: Tensor, parts: Tensor, step: int, rng: torch.Generator) -> Tensor:
        """(p,) rows of crops -> (p, d) of the whole batch, L2-normalized; each process embeds its part.

        `parts` are (p, 4), what is seen of each crop, xyxy as fractions; zeros are all of it.
        """
        settings, device, rows = self.settings, self.env.device, self.env.rows(len(crop_rows))
        size, changes = settings.image_size(step), None
        if settings.augmentation:
            zoom = settings.zoom[0], settings.zoom[1]
            drawn = draw_changes(len(crop_rows), size, rng, zoom=zoom, erased=settings.erased)
            changes = drawn.of(rows, device)
        seen = self.crops[crop_rows[rows]]
        for place, part in enumerate(parts[rows]):
            if part.any():
                seen[place] = refit(seen[place], part)
        pixels = apply_changes(seen.to(device), size, changes)
        return self.env.all_gather(embed_in_parts(self._embed, pixels, settings.micro_batch))

    def _embed(self, pixels: Tensor) -> Tensor:
        """(b, 3, h, w) in [0, 1] -> (b, d)."""
        normal = ((pixels - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        return functional.normalize(self.visual(normal).float(), dim=-1)

    def _cuts(self, garments: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """The garments' cuts, (g,) int64, and what is seen of their crops, (g, 4); zeros are all."""
        if not self.settings.cuts:
            return torch.zeros_like(garments), torch.zeros(len(garments), 4)
        cuts, inside = draw_cuts(self.chances[garments], self.settings.cuts, rng)
        extent = self.extents[garments]
        corner, size = extent[:, :2], extent[:, 2:] - extent[:, :2]
        parts = corner.repeat(1, 2) + size.repeat(1, 2) * inside
        return cuts, torch.where(cuts[:, None] > 0, parts, 0.0)

    def _choices(self, garments: Tensor, cuts: Tensor, rng: torch.Generator) -> dict[str, tuple[Tensor, Tensor]]:
        """Ids (g, k) of all prompts of a group, and the target (g, k) among them, by group."""
        labels = self.labels
        return {
            "category": labels.categories(garments, rng),
            "color": labels.colors(garments),
            **{
                group: labels.attributes(garments, group, cuts, rng, self.settings.reworded)
                for group in labels.vocabulary.groups
            },
        }
