"""Regions -> crops and masked crops -> encoder -> zero-shot -> Recognition."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice, repeat
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fashion_retrieval.config import ModelConfig
from fashion_retrieval.errors import InputError
from fashion_retrieval.images.inputs import DeferredFile, ImageInput, describe
from fashion_retrieval.images.pixels import Pixels, as_pixels
from fashion_retrieval.images.preprocess import RGB
from fashion_retrieval.images.regions import box_mask, pixel_box
from fashion_retrieval.inference.colors import PALETTE, PixelColors, illuminant
from fashion_retrieval.models.zero_shot import Floats, PromptCache, ZeroShotClassifier, attribute_view
from fashion_retrieval.results import Attribute, Color, Garment, Recognition, Region, Score, Segmenter
from fashion_retrieval.taxonomy import Group, Taxonomy, Value, attribute_prompts, category_prompts

if TYPE_CHECKING:
    from fashion_retrieval.models.probe import Probe
    from fashion_retrieval.models.towers import Towers

_UPPER, _LOWER = {"upper", "outerwear", "dress"}, {"trousers", "shorts", "skirt", "legwear", "dress"}
_SAME_FAMILY, _OTHER_FAMILY = 0.3, 0.02
_NO_COLOR = "plain"
_CONTEXT_SIZE = 3
"""Categories that an attribute prompt is averaged over; chosen on the validation split."""
_ENCODER_TRUST = 0.5
"""Exponent on the encoder's color probabilities beside those of the pixels; chosen on the validation split."""

_RECOGNIZERS = 8

CategoryContext = Sequence[tuple[Value, float]]
"""Categories that a garment may be of, with weights that sum to 1: what attribute prompts name."""


@dataclass(frozen=True, slots=True)
class Photo:
    """An upright photo with the regions of its garments."""

    pixels: Pixels
    regions: Sequence[Region]
    given: ImageInput | DeferredFile | None = None


@dataclass(frozen=True, slots=True)
class _Seen:
    """A region, the probabilities of its categories, (values,), its crop and masked crop, (d,) each, and its colors."""

    region: Region
    categories: Floats
    crop: Floats
    masked: Floats
    colors: PixelColors

    @property
    def view(self) -> Floats:
        return attribute_view(self.crop, self.masked)


def find_photo(
    photo: Pixels | NDArray[np.uint8],
    boxes: NDArray[np.float32] | None,
    segmenter: Segmenter | None,
    given: ImageInput | DeferredFile | None = None,
) -> Photo:
    """A photo with what the segmenter finds or, without one, whole boxes or the whole photo.

    Boxes are (N, 4) xyxy in pixels, inside the photo; None finds the garments. `given` is what the photo was read from.
    """
    pixels = as_pixels(photo).upright()
    if segmenter is not None:
        seen: Any = pixels if getattr(segmenter, "takes_pixels", False) else pixels.image()
        return Photo(pixels, segmenter.segment(seen, boxes), given)
    whole = [[0.0, 0.0, float(pixels.width), float(pixels.height)]]
    regions = [
        Region((left, top, right, bottom), box_mask((left, top, right, bottom), pixels.height, pixels.width), 1.0)
        for left, top, right, bottom in (whole if boxes is None else boxes.tolist())
    ]
    return Photo(pixels, regions, given)


@dataclass(frozen=True, kw_only=True, eq=False)
class Recognizer:
    """What is in regions of photos, by towers and a taxonomy; made by `FashionModel.recognizer`.

    Several threads may use it at once, and several taxonomies share `prompts`. By group, `calibration` is the factor on
    the logits that makes probabilities frequencies, `thresholds` the probability below which a value is reported as not
    visible, and `probes` what `FashionModel.fit_attribute` learned. `top_k` alternatives are reported.
    """

    towers: Towers
    prompts: PromptCache
    taxonomy: Taxonomy
    calibration: Mapping[str, float]
    thresholds: Mapping[str, float]
    model_id: str
    probes: Mapping[str, Probe] = field(default_factory=dict)
    top_k: int = 3
    # Each beside its group, so that no other group gets the same id.
    _classifiers: dict[tuple[int, Value | str], tuple[Group, ZeroShotClassifier]] = field(default_factory=dict)
    _agreements: dict[str | None, Floats] = field(default_factory=dict)

    def every_prompt(self) -> list[str]:
        """All texts that it may have to embed, each once, in order."""
        category = self.taxonomy.category
        pairs: list[tuple[Group, Value | str]] = [(category, color) for color in (*PALETTE, _NO_COLOR)]
        pairs += [(group, noun) for group in (category, *self.taxonomy.attributes) for noun in category.values]
        return sorted({text for group, about in pairs for one in self._prompts(group, about) for text in one})

    def reporting(self, top_k: int) -> Recognizer:
        """This recognizer with another `top_k`; both share what they have prepared."""
        return self if top_k == self.top_k else replace(self, top_k=top_k)

    @property
    def fitted(self) -> dict[str, str] | None:
        """The digest of the probe by group of the taxonomy; None where the prompts alone decide."""
        groups = ["category", *(group.name for group in self.taxonomy.attributes)]
        return {name: self.probes[name].digest for name in groups if name in self.probes} or None

    def recognize(self, photos: Sequence[Photo], *, batch_size: int = 32) -> list[Recognition]:
        """One `Recognition` a photo; the regions of all photos go through the encoder together, `batch_size` a time."""
        seen = self._see(photos, batch_size)
        self._prepare_garments([one.categories for one in seen])
        garments = map(self._garment, seen)
        recognitions = []
        for photo in photos:
            size = photo.pixels.width, photo.pixels.height
            own = tuple(next(garments) for _ in photo.regions)
            found = Recognition(*size, own, self.model_id, describe(photo.given))
            recognitions.append(found._of(photo.pixels, photo.given))
        return recognitions

    def views(self, photos: Sequence[Photo], *, batch_size: int = 32) -> tuple[Floats, Floats]:
        """What attributes of each region are read from: its `attribute_view`, (N, d), and (N, categories) beside it."""
        seen = self._see(photos, batch_size)
        return np.stack([one.view for one in seen]), np.stack([one.categories for one in seen])

    def by_prompts(self, views: Floats, categories: Floats, group: Group) -> Floats:
        """Probability of each value of a group for what `views` gives, by the prompts alone: (N, values) float32."""
        contexts = [self.category_context(row) for row in categories]
        self._prepare((group, noun) for context in contexts for noun, _ in context)
        return np.stack([self._by_prompts(*row) for row in zip(views, repeat(group), contexts)])

    def _see(self, photos: Sequence[Photo], batch_size: int) -> list[_Seen]:
        """The regions of all photos, embedded together, with their categories and colors."""
        regions, colors = [], []
        for photo in photos:
            light = illuminant(photo.pixels)
            regions += [(photo.pixels, region) for region in photo.regions]
            colors += [PixelColors.compute(photo.pixels, region.mask, light=light) for region in photo.regions]
        crops, masked = self._embed_crops(regions, batch_size)
        dominant = [one.dominant or _NO_COLOR for one in colors]
        self._prepare((self.taxonomy.category, color) for color in dominant)
        return [
            _Seen(region, self.category_probabilities(crop, color, region.kind), crop, inside, of_pixels)
            for (_, region), crop, inside, of_pixels, color in zip(
                regions, crops, masked, colors, dominant, strict=True
            )
        ]

    def _embed_crops(self, regions: Sequence[tuple[Pixels, Region]], batch_size: int) -> tuple[Floats, Floats]:
        """Embeddings of crops and of masked crops, (N, d) each; where the two are the same, it is embedded once."""
        differ = [
            i
            for i, (photo, region) in enumerate(regions)
            if not region.mask[pixel_box(region.box, photo.height, photo.width)].all()
        ]
        crops = (photo.crop(region.box) for photo, region in regions)
        masked = (regions[i][0].crop(regions[i][1].box, regions[i][1].mask) for i in differ)
        rows = self.embed(chain(crops, masked), batch_size)
        both = rows[: len(regions)].copy()
        both[differ] = rows[len(regions) :]
        return rows[: len(regions)], both

    def embed(self, images: Iterable[RGB], batch_size: int) -> Floats:
        """RGB photos or parts of them -> (N, d) float32, L2-normalized."""
        rows = [np.empty((0, self.towers.embedding_dim), np.float32)]
        shrunk = map(self.towers.preprocessing.resize, images)
        while levels := list(islice(shrunk, batch_size)):
            rows.append(self.towers.encode_images(levels))
        return np.concatenate(rows)

    def category_probabilities(self, embedding: Floats, color: str, kind: str | None = None) -> Floats:
        """Classify one crop, by its embedding, (d,) float32, among the categories: (values,) float32, summing to 1.

        The prompts name the color; `kind` is what the segmenter takes the garment for. A probe of "category" tells how
        likely anything can be told of the category: then they sum to that.
        """
        group = self.taxonomy.category
        probabilities = self._classifier(group, color).probabilities(embedding)
        if kind not in self._agreements:
            weights = [_agreement(value.kind, kind) for value in group.values]
            self._agreements[kind] = np.array(weights, np.float32)
        agreeing = probabilities * self._agreements[kind]
        found: Floats = agreeing / agreeing.sum()
        return found * self.probes["category"].chance(embedding)[0] if "category" in self.probes else found

    def category_context(self, probabilities: Floats) -> CategoryContext:
        """The likeliest categories by their (values,) probabilities: what attribute prompts name."""
        top = _highest(probabilities, _CONTEXT_SIZE)
        values = [self.taxonomy.category.values[index] for index in top]
        return list(zip(values, (probabilities[top] / probabilities[top].sum()).tolist(), strict=True))

    def attribute_probabilities(self, embedding: Floats, group: Group, context: CategoryContext) -> Floats:
        """Classify one region's `attribute_view`, (d,) float32, among the values of a group, of any taxonomy.

        The result, (values,) float32, summing to 1, is the mean over the categories of `context`, by their weights. For
        values that a probe of the group knows, the probe corrects it.
        """
        by_prompts = self._by_prompts(embedding, group, context)
        probe = self.probes.get(group.name)
        names = [value.name for value in group.values]
        return by_prompts if probe is None else probe.correct(by_prompts, embedding, names)

    def _by_prompts(self, embedding: Floats, group: Group, context: CategoryContext) -> Floats:
        parts = [weight * self._classifier(group, noun).probabilities(embedding) for noun, weight in context]
        return np.asarray(sum(parts), np.float32)

    def _classifier(self, group: Group, about: Value | str) -> ZeroShotClassifier:
        """Of categories for a color, of colors for a category, or of an attribute group's values for a category."""
        key = id(group), about
        if key not in self._classifiers:
            of_colors = group is self.taxonomy.category and isinstance(about, Value)
            scale = self.towers.logit_scale * self.calibration.get("color" if of_colors else group.name, 1.0)
            made = ZeroShotClassifier.build(self.prompts, self._prompts(group, about), len(group.templates), scale)
            self._classifiers[key] = group, made
        return self._classifiers[key][1]

    def _prompts(self, group: Group, about: Value | str) -> list[list[str]]:
        """The prompts of each class of a classifier."""
        if isinstance(about, str):
            return [category_prompts(group, value, about) for value in group.values]
        if group is self.taxonomy.category:
            return [category_prompts(group, about, name)[: len(group.templates)] for name in PALETTE]
        return [attribute_prompts(group, value, about) for value in group.values]

    def _prepare(self, classifiers: Iterable[tuple[Group, Value | str]]) -> None:
        """Embed the prompts of these classifiers in one go."""
        new = {(id(group), about): group for group, about in classifiers if (id(group), about) not in self._classifiers}
        self.prompts.add(
            text for (_, about), group in new.items() for one in self._prompts(group, about) for text in one
        )

    def _prepare_garments(self, probabilities: Sequence[Floats]) -> None:
        """Embed all prompts that garments of these category probabilities need, at once."""
        classifiers: list[tuple[Group, Value | str]] = []
        for found in probabilities:
            context = self.category_context(found)
            category = context[0][0]
            groups = [group for group in self.taxonomy.attributes if group.applies(category)]
            classifiers += [(group, noun) for group in groups for noun, _ in context]
            classifiers.append((self.taxonomy.category, category))
        self._prepare(classifiers)

    def colors(self, pixels: PixelColors, masked: Floats, category: Value) -> tuple[Color, ...]:
        """What the pixels say, weighed with the color words nearest to the garment's masked crop, (d,) float32."""
        probabilities = self._classifier(self.taxonomy.category, category).probabilities(masked).tolist()
        prior = {name: value**_ENCODER_TRUST for name, value in zip(PALETTE, probabilities, strict=True)}
        return pixels.colors(prior=prior)

    def _garment(self, seen: _Seen) -> Garment:
        region, probabilities = seen.region, seen.categories
        values = self.taxonomy.category.values
        categories = _ranked(values, probabilities, self.top_k)
        category = next(value for value in values if value.name == categories[0].name)
        context = self.category_context(probabilities)
        view = seen.view
        attributes = {group.name: self._attribute(group, category, context, view) for group in self.taxonomy.attributes}
        garment = Garment(
            box=region.box,
            mask=region.mask,
            score=region.score,
            kind=region.kind,
            category=categories[0],
            categories=categories,
            attributes=attributes,
            colors=self.colors(seen.colors, seen.masked, category),
        )
        return garment._compressed() if region._packed else garment

    def _attribute(self, group: Group, category: Value, context: CategoryContext, view: Floats) -> Attribute:
        if not group.applies(category):
            return Attribute(group.name, None, 1.0, "not_applicable")
        scores = _ranked(group.values, self.attribute_probabilities(view, group, context), self.top_k)
        best = scores[0]
        absent = any(value.absent for value in group.values if value.name == best.name)
        if absent or best.probability < self.thresholds.get(group.name, 0.0):
            certainty = best.probability if absent else 1 - best.probability
            return Attribute(group.name, None, certainty, "not_visible", scores)
        return Attribute(group.name, best.name, best.probability, "visible", scores)


class RecognizerCache:
    """A model's recognizers, the latest `_RECOGNIZERS` of them, so that no call prepares a taxonomy anew."""

    def __init__(self, towers: Towers, prompts: PromptCache, model_id: str) -> None:
        self._parts: dict[str, Any] = {"towers": towers, "prompts": prompts, "model_id": model_id}
        self._kept: deque[tuple[Taxonomy | str, ModelConfig, Recognizer]] = deque(maxlen=_RECOGNIZERS)
        self._lock = Lock()

    def get(
        self,
        config: ModelConfig,
        probes: Mapping[str, Probe],
        source: Taxonomy | Mapping[str, Any] | str | Path,
        top_k: int,
    ) -> Recognizer:
        """The recognizer for a taxonomy, as `Taxonomy.load` takes it, with what a model has for its groups."""
        if top_k < 1:
            raise InputError(f"top_k must be at least 1, got {top_k}")
        # One taxonomy is told from another without comparing their words: a file gives the same object again.
        key = repr(source) if isinstance(source, Mapping) else Taxonomy.load(source)
        with self._lock:
            for known, of, recognizer in self._kept:
                if of is config and (known is key or (isinstance(key, str) and known == key)):
                    return recognizer.reporting(top_k)
            fitted: dict[str, Any] = {"calibration": config.calibration, "thresholds": config.thresholds}
            fitted["probes"] = dict(probes)
            made = Recognizer(taxonomy=Taxonomy.load(source), **fitted, **self._parts)
            self._kept.append((key, config, made))
        return made.reporting(top_k)


def _ranked(values: Sequence[Value], probabilities: Floats, top_k: int) -> tuple[Score, ...]:
    return tuple(
        Score(values[index].name, min(1.0, float(probabilities[index]))) for index in _highest(probabilities, top_k)
    )


def _highest(probabilities: Floats, count: int) -> list[int]:
    """Places of the highest, the highest first, of equals the first."""
    found: list[int] = np.argsort(-probabilities, kind="stable")[:count].tolist()
    return found


def _agreement(category: str | None, region: str | None) -> float:
    """How far a category of this kind may stand in a region that the segmenter took for that kind."""
    if category is None or region is None or category == region:
        return 1.0
    related = {category, region} <= _UPPER or {category, region} <= _LOWER
    return _SAME_FAMILY if related else _OTHER_FAMILY
