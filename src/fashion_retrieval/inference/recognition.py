"""Regions -> crops and masked crops -> encoder -> zero-shot -> Recognition."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fashion_retrieval.images.preprocess import RGB
from fashion_retrieval.images.regions import crop_region, masked_crop
from fashion_retrieval.inference.colors import PALETTE, Look, light, look
from fashion_retrieval.models.zero_shot import PromptCache, Question, attribute_view
from fashion_retrieval.results import Attribute, Color, Garment, Recognition, Region, Score, Segmenter
from fashion_retrieval.taxonomy import Group, Taxonomy, Value, attribute_prompts, category_prompts

if TYPE_CHECKING:
    from fashion_retrieval.models.encoder import Encoder

_UPPER, _LOWER = {"upper", "outerwear", "dress"}, {"trousers", "shorts", "skirt", "legwear", "dress"}
_SAME_FAMILY, _OTHER_FAMILY = 0.3, 0.02
_NO_COLOR = "plain"
_NOUNS = 3
"""Categories that an attribute prompt is averaged over; chosen on the validation split."""
_ENCODER_TRUST = 0.5
"""Exponent on the encoder's color probabilities beside those of the pixels; chosen on the validation split."""


Nouns = Sequence[tuple[Value, float]]
"""Categories that a garment may be of, with weights that sum to 1."""


@dataclass(frozen=True, slots=True)
class Photo:
    """An upright RGB photo with the regions found in it."""

    image: Image.Image
    regions: Sequence[Region]
    source: str | None


def find_regions(
    image: Image.Image, boxes: NDArray[np.float32] | None, segmenter: Segmenter | None
) -> Sequence[Region]:
    """What the segmenter finds or, without one, whole boxes or the whole photo.

    Args:
        image: Upright RGB photo.
        boxes: (N, 4) xyxy in pixels, inside the photo; None finds the garments.
        segmenter: None cuts nothing out of boxes.
    """
    if segmenter is not None:
        return segmenter.segment(image, boxes)
    whole = np.array([[0, 0, image.width, image.height]], dtype=np.float32)
    regions = []
    for left, top, right, bottom in (whole if boxes is None else boxes).tolist():
        mask = np.zeros((image.height, image.width), dtype=bool)
        mask[int(top) : max(int(top) + 1, round(bottom)), int(left) : max(int(left) + 1, round(right))] = True
        regions.append(Region((left, top, right, bottom), mask, 1.0))
    return regions


class Recognizer:
    """What is in regions of photos, by an encoder and a taxonomy.

    Args:
        encoder: The dual encoder, on `device`.
        prompts: Embeddings of prompts, shared between taxonomies.
        taxonomy: What to look for.
        calibration: Factor on the logits by group, so that probabilities are frequencies.
        thresholds: By group, the probability below which a value is reported as not visible.
    """

    def __init__(
        self,
        *,
        encoder: Encoder,
        prompts: PromptCache,
        taxonomy: Taxonomy,
        calibration: dict[str, float],
        thresholds: dict[str, float],
        device: torch.device,
    ) -> None:
        self.encoder = encoder
        self.prompts = prompts
        self.taxonomy = taxonomy
        self.calibration = calibration
        self.thresholds = thresholds
        self.device = device
        self._questions: dict[tuple[int, Value | str], tuple[Group, Question]] = {}  # its group keeps an id its own
        self._colors: dict[Value, Question] = {}
        self._agreements: dict[str | None, Tensor] = {}

    def recognize(self, photos: Sequence[Photo], *, model_id: str, top_k: int, batch_size: int) -> list[Recognition]:
        """One `Recognition` a photo; the regions of all photos go through the encoder together."""
        arrays = [np.array(photo.image) for photo in photos]
        regions, looks = [], []
        for pixels, photo in zip(arrays, photos, strict=True):
            around = light(pixels)
            regions += [(pixels, region) for region in photo.regions]
            looks += [look(pixels, region.mask, around=around) for region in photo.regions]
        crops, masked = self._views(regions, batch_size)
        dominant = [seen.dominant or _NO_COLOR for seen in looks]
        self._prepare((self.taxonomy.category, color) for color in dominant)
        shares = [
            self.category_probabilities(crop, color, region.kind)
            for (_, region), crop, color in zip(regions, crops, dominant, strict=True)
        ]
        self._prepare_attributes(shares)
        garments = iter(
            self._garment(region, found, attribute_view(crop, inside), inside, seen, top_k)
            for (_, region), found, crop, inside, seen in zip(regions, shares, crops, masked, looks, strict=True)
        )
        return [
            Recognition(
                photo.image.width,
                photo.image.height,
                tuple(next(garments) for _ in photo.regions),
                model_id,
                photo.source,
                photo.image,
            )
            for photo in photos
        ]

    def _views(self, regions: Sequence[tuple[NDArray[np.uint8], Region]], batch_size: int) -> tuple[Tensor, Tensor]:
        """Embeddings of crops and of masked crops, (N, d) each; where the two are the same, it is embedded once."""
        crops = [crop_region(pixels, region.box) for pixels, region in regions]
        masked = [masked_crop(pixels, region.box, region.mask) for pixels, region in regions]
        differ = [i for i, views in enumerate(zip(crops, masked, strict=True)) if not np.may_share_memory(*views)]
        rows = self.embed([*crops, *(masked[i] for i in differ)], batch_size)
        inside = rows[: len(crops)].clone()
        inside[differ] = rows[len(crops) :]
        return rows[: len(crops)], inside

    def embed(self, images: Sequence[RGB], batch_size: int) -> Tensor:
        """RGB photos or parts of them -> (N, d) float32, L2-normalized, on the model's device."""
        rows = [torch.empty(0, self.encoder.embedding_dim, device=self.device)]
        for start in range(0, len(images), batch_size):
            levels = [self.encoder.preprocessing.resize(image) for image in images[start : start + batch_size]]
            with torch.inference_mode():
                rows.append(self.encoder.encode_image(self.encoder.preprocessing.batch(levels, self.device)))
        return torch.cat(rows)

    def category_probabilities(self, embedding: Tensor, color: str, kind: str | None = None) -> Tensor:
        """(values,) over the taxonomy's categories for one crop; `kind` is what the segmenter takes it for."""
        group = self.taxonomy.category
        shares = self._question(group, color).probabilities(embedding)
        if kind not in self._agreements:
            weights = [_agreement(value.kind, kind) for value in group.values]
            self._agreements[kind] = torch.tensor(weights, device=shares.device)
        agreeing = shares * self._agreements[kind]
        return agreeing / agreeing.sum()

    def nouns(self, shares: Tensor) -> Nouns:
        """The likeliest categories, with their (values,) probabilities, summing to 1: what attribute prompts name."""
        top = shares.topk(min(_NOUNS, len(shares)))
        values = [self.taxonomy.category.values[index] for index in top.indices.tolist()]
        return list(zip(values, (top.values / top.values.sum()).tolist(), strict=True))

    def attribute_probabilities(self, embedding: Tensor, group: Group, nouns: Nouns) -> Tensor:
        """(values,) over the values of an attribute group for one region (`attribute_view`).

        The mean over the categories that it may be of, weighed by their probabilities.
        """
        parts = [weight * self._question(group, noun).probabilities(embedding) for noun, weight in nouns]
        return torch.stack(parts).sum(0)

    def _question(self, group: Group, about: Value | str) -> Question:
        """The classes of the category group, for a color, or of an attribute group, for a category."""
        key = id(group), about
        if key not in self._questions:
            self._questions[key] = group, self._asked(group, _prompts(group, about), group.name)
        return self._questions[key][1]

    def _asked(self, group: Group, prompts: Sequence[Sequence[str]], calibrated: str) -> Question:
        scale = self.encoder.logit_scale * self.calibration.get(calibrated, 1.0)
        return Question.of(self.prompts, prompts, len(group.templates), scale)

    def _prepare(self, questions: Iterable[tuple[Group, Value | str]], texts: Iterable[str] = ()) -> None:
        """Embed the prompts of these questions, and texts, in one go."""
        new = {(id(group), about): group for group, about in questions if (id(group), about) not in self._questions}
        prompts = [prompt for (_, about), group in new.items() for one in _prompts(group, about) for prompt in one]
        self.prompts.add([*prompts, *texts])

    def _prepare_attributes(self, shares: Sequence[Tensor]) -> None:
        """Embed what will be asked of garments of these category probabilities, all at once."""
        questions, texts = [], []
        for found in shares:
            nouns = self.nouns(found)
            category = nouns[0][0]
            groups = [group for group in self.taxonomy.attributes if group.applies(category)]
            questions += [(group, noun) for group in groups for noun, _ in nouns]
            if category not in self._colors:
                texts += [text for prompts in self._color_prompts(category) for text in prompts]
        self._prepare(questions, texts)

    def _color_prompts(self, category: Value) -> list[list[str]]:
        group = self.taxonomy.category
        return [category_prompts(group, category, name)[: len(group.templates)] for name in PALETTE]

    def colors(
        self, pixels: NDArray[np.uint8], region: NDArray[np.bool_], masked: Tensor, category: Value
    ) -> tuple[Color, ...]:
        """Colors inside a mask: what the pixels say, weighed with the color words nearest to the masked crop."""
        return self._weighed(look(pixels, region), masked, category)

    def _weighed(self, seen: Look, masked: Tensor, category: Value) -> tuple[Color, ...]:
        if category not in self._colors:
            self._colors[category] = self._asked(self.taxonomy.category, self._color_prompts(category), "color")
        shares = self._colors[category].probabilities(masked)
        prior = {name: share**_ENCODER_TRUST for name, share in zip(PALETTE, shares.tolist(), strict=True)}
        return seen.colors(prior=prior)

    def _garment(self, region: Region, shares: Tensor, view: Tensor, masked: Tensor, seen: Look, top_k: int) -> Garment:
        values = self.taxonomy.category.values
        categories = _ranked(values, shares, top_k)
        category = next(value for value in values if value.name == categories[0].name)
        nouns = self.nouns(shares)
        attributes = {g.name: self._attribute(g, category, nouns, view, top_k) for g in self.taxonomy.attributes}
        return Garment(
            box=region.box,
            mask=region.mask,
            score=region.score,
            kind=region.kind,
            category=categories[0],
            categories=categories,
            attributes=attributes,
            colors=self._weighed(seen, masked, category),
        )

    def _attribute(self, group: Group, category: Value, nouns: Nouns, view: Tensor, top_k: int) -> Attribute:
        if not group.applies(category):
            return Attribute(group.name, None, 1.0, "not_applicable")
        scores = _ranked(group.values, self.attribute_probabilities(view, group, nouns), top_k)
        best = scores[0]
        absent = any(value.absent for value in group.values if value.name == best.name)
        if absent or best.probability < self.thresholds.get(group.name, 0.0):
            certainty = best.probability if absent else 1 - best.probability
            return Attribute(group.name, None, certainty, "not_visible", scores)
        return Attribute(group.name, best.name, best.probability, "visible", scores)


def _prompts(group: Group, about: Value | str) -> list[list[str]]:
    """Of each value: of the category group with a color, of an attribute group with a category."""
    if isinstance(about, str):
        return [category_prompts(group, value, about) for value in group.values]
    return [attribute_prompts(group, value, about) for value in group.values]


def _ranked(values: Sequence[Value], shares: Tensor, top_k: int) -> tuple[Score, ...]:
    top = shares.topk(min(top_k, len(values)))
    pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
    return tuple(Score(values[index].name, min(1.0, share)) for index, share in pairs)


def _agreement(category: str | None, region: str | None) -> float:
    """How far a category of this kind may stand in a region that the segmenter took for that kind."""
    if category is None or region is None or category == region:
        return 1.0
    related = {category, region} <= _UPPER or {category, region} <= _LOWER
    return _SAME_FAMILY if related else _OTHER_FAMILY
