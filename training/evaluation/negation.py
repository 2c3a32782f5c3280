"""Wishes that say what is not wanted: how much of the top 10 shows it, and whether others are answered as ever.

A wish is said of a photo that shows the value: "not striped" of a striped shirt. Ways to answer it: the text as it is
goes to the composer; `Refinement` reads it and lowers what is near to the unwanted; and, where the gallery is
recognized, it also puts last what is recognized as unwanted.
"""

from __future__ import annotations

import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from fashion_retrieval import FashionModel, Gallery, Match, Refinement, Taxonomy
from fashion_retrieval._utils.progress import tracked
from fashion_retrieval._utils.significance import ItemScores
from fashion_retrieval.errors import ConfigError
from fashion_retrieval.gallery.vocabulary import Part, Vocabulary
from fashion_retrieval.gallery.wish import read_wish
from fashion_retrieval.results import Matches
from training.data.manifest import Sample, labeled_samples
from training.data.pairs import read_pairs
from training.data.triplets import CaptionMode, join_captions

CONFIG = Path(__file__).parents[1] / "configs/negation.toml"
WORDINGS = {
    "without": "without {thing}",
    "not": "not {look}",
    "no": "no {thing}",
    "less": "less {look}",
    "instead of": "{other} instead of {thing}",
}
TOP = 10
_COLOR = "color"
Shares = NDArray[np.float64]


class _Remembering:
    """A model that encodes each photo of the gallery once."""

    def __init__(self, model: FashionModel, photos: Sequence[str]) -> None:
        self.config, self.model_id, self._model = model.config, model.model_id, model
        self._references = dict(zip(photos, model.reference(list(photos)), strict=True))

    def encode(
        self, *, images: Sequence[str] = (), texts: Sequence[str] = (), max_pixels: int | None = None
    ) -> NDArray[np.float32]:
        return self._references[images[0]].embedding[None] if images else self._model.encode(texts=list(texts))

    def compose(
        self, start: Match | str, text: str, *, text_weight: float | None = None, max_pixels: int | None = None
    ) -> NDArray[np.float32]:
        photo = start if isinstance(start, str) else str(start.photo)
        return self._model.compose(self._references[photo], text)


class _NotByFields(Refinement):
    """Reads wishes, but does not look at what was recognized."""

    def _condition(self, part: Part) -> None:
        return None


def evaluate_negation(
    model: FashionModel, data: Path, split: str, *, references: int = 6, photos: int | None = None, seed: int = 0
) -> dict[str, Any]:
    """Shares of the top 10 that show what was not wanted, by way; differences are paired over values and photos.

    Args:
        model: A model with a composer.
        data: The open data pack.
        split: Its split.
        references: At most so many photos of each value are asked from.
        photos: Draw so many of the labeled photos, without pairs; None takes all.
        seed: Seed of what is drawn and of the intervals.
    """
    data = data.absolute()  # as a gallery keeps the paths of its photos
    samples = [sample for sample in labeled_samples(data, split) if sample.source != "street"]
    generator = np.random.default_rng(seed)
    if photos is not None:
        samples = [samples[place] for place in sorted(generator.permutation(len(samples))[:photos])]
    labels = {f"{s.source}/{s.id}": {**s.attributes, _COLOR: s.color, "category": s.category} for s in samples}
    wishes = _wishes(labels, references, generator)
    with _gallery(model) as gallery:
        gallery.add([sample.photo for sample in samples], [*labels], progress=True)
        found = _ask_all(model, gallery, samples, wishes)
    shares = {way: _shares(answers, wishes, labels) for way, answers in found.items()}
    scores = {way: ItemScores(values, (len(values),)) for way, values in shares.items()}
    asked = scores["as text"]
    return {
        "photos": len(samples),
        "values": len({(group, value) for group, value, _, _, _ in wishes}),
        "wishes": len(wishes) * len(WORDINGS),
        "chance": float(np.mean([_chance(labels, group, shown) for group, _, shown, _, _ in wishes])),
        "ways": {
            way: {
                "share": scores[way].mean(),
                "interval": scores[way].interval(seed=seed),
                "by_wording": dict(zip(WORDINGS, shares[way].mean(axis=0).tolist(), strict=True)),
                "by_group": _by_group(shares[way], wishes),
                "same_category": _same_category(answers, wishes, labels),
                "of_as_text": scores[way].mean() / asked.mean(),
                "less_than_as_text": asked.compare(scores[way], seed=seed),
            }
            for way, answers in found.items()
        },
        "pairs": _pairs(model, data, split, seed) if photos is None else None,
    }


@contextmanager
def _gallery(model: FashionModel, **fields: type) -> Iterator[Gallery]:
    """An empty gallery that recognizes its photos, for as long as it is asked."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Gallery.create(f"{folder}/gallery", model, recognize=True, fields=fields) as gallery,
    ):
        yield gallery


Wished = tuple[str, str, frozenset[str], str, tuple[str, ...]]
"""Group and value, the labels that show it, the id of the reference, and the wordings."""


def _wishes(labels: Mapping[str, Mapping[str, str | None]], most: int, generator: np.random.Generator) -> list[Wished]:
    config = tomllib.loads(CONFIG.read_text(encoding="utf-8"))
    found: list[Wished] = []
    for group in config["instead"]:
        for value, (thing, look) in config.get(group, {}).items():
            shown = frozenset(config["shown"].get(value, (value,)))
            ids = [name for name, label in labels.items() if label.get(group) in shown]
            if len(ids) < config["least"]:
                continue
            other = next(word for word in config["instead"][group] if word not in (thing, look, f"a {thing}"))
            texts = tuple(wording.format(thing=thing, look=look, other=other) for wording in WORDINGS.values())
            chosen = generator.permutation(len(ids))[:most]
            found += [(group, value, shown, ids[place], texts) for place in sorted(chosen)]
    if not found:
        raise ConfigError(f"no value of {CONFIG.name} has {config['least']} labeled photos; take a larger split")
    return found


def _ask_all(
    model: FashionModel, gallery: Gallery, samples: Sequence[Sample], wishes: Sequence[Wished]
) -> dict[str, list[list[Matches]]]:
    """Results by way, wish and wording."""
    remembering = cast(FashionModel, _Remembering(model, [str(sample.photo) for sample in samples]))
    answers: dict[str, list[list[Matches]]] = {"as text": [], "read": [], "read and recognized": []}
    for *_, name, texts in tracked(wishes, "asking", len(wishes), shown=True, unit="wishes"):
        start = gallery.get(name)
        plain = [gallery.search(remembering.compose(start, text), TOP, exclude=[name]) for text in texts]
        answers["as text"].append(plain)
        for way, kind in (("read", _NotByFields), ("read and recognized", Refinement)):
            answers[way].append([kind(remembering, gallery).ask(text, start, top_k=TOP) for text in texts])
    return answers


def _shares(
    answers: Sequence[Sequence[Sequence[Match]]],
    wishes: Sequence[Wished],
    labels: Mapping[str, Mapping[str, str | None]],
) -> Shares:
    """(wishes, wordings): the share of the results whose label shows what was not wanted."""
    return np.array(
        [
            [np.mean([labels[match.id].get(group) in shown for match in matches]) for matches in found]
            for (group, _, shown, _, _), found in zip(wishes, answers, strict=True)
        ]
    )


def _same_category(
    answers: Sequence[Sequence[Sequence[Match]]],
    wishes: Sequence[Wished],
    labels: Mapping[str, Mapping[str, str | None]],
) -> float:
    """The share of the results that are of the reference's category: what should stay."""
    kept = [
        labels[match.id]["category"] == labels[wish[3]]["category"]
        for wish, found in zip(wishes, answers, strict=True)
        for matches in found
        for match in matches
    ]
    return float(np.mean(kept))


def _by_group(shares: Shares, wishes: Sequence[Wished]) -> dict[str, float]:
    groups = np.array([wish[0] for wish in wishes])
    return {group: float(shares[groups == group].mean()) for group in dict.fromkeys(groups.tolist())}


def _chance(labels: Mapping[str, Mapping[str, str | None]], group: str, shown: frozenset[str]) -> float:
    return float(np.mean([label.get(group) in shown for label in labels.values()]))


def _pairs(model: FashionModel, data: Path, split: str, seed: int) -> dict[str, Any]:
    """Recall of the pack's pairs whose captions negate, by way; the others are asked as they stand.

    `plain` counts captions without a negation; `changed` those of them that are not the query word for word.
    """
    vocabulary = Vocabulary(Taxonomy.load(model.config.taxonomy))
    groups = read_pairs(data, split).groups
    wishes = [
        (group, triplet, read_wish(join_captions(triplet.captions, CaptionMode.BOTH), vocabulary))
        for group in groups
        for triplet in group.triplets
    ]
    chosen = [(group, triplet, wish) for group, triplet, wish in wishes if wish.negative]
    plain = [wish for _, _, wish in wishes if not wish.negative]
    photos = {name: (group.name, str(group.photos[name])) for group in groups for name in group.gallery}
    remembering = cast(FashionModel, _Remembering(model, [photo for _, photo in photos.values()]))
    hits: dict[str, list[bool]] = {"as text": [], "read": [], "read and recognized": []}
    with _gallery(model, group=str) as gallery:
        gallery.add([p for _, p in photos.values()], [*photos], [{"group": g} for g, _ in photos.values()])
        for group, triplet, wish in tracked(chosen, "asking", len(chosen), shown=True, unit="pairs"):
            start, where = str(group.photos[triplet.candidate]), f"\"group\" = '{group.name}'"
            found = {"as text": gallery.search(remembering.compose(start, wish.text), TOP, where=where)}
            for way, kind in (("read", _NotByFields), ("read and recognized", Refinement)):
                found[way] = kind(remembering, gallery).ask(wish.text, start, top_k=TOP, where=where)
            for way, matches in found.items():
                hits[way].append(triplet.target in {match.id for match in matches})
    scores = {way: ItemScores.of_groups([np.array(hit)]) for way, hit in hits.items()}
    return {
        "plain": len(plain),
        "changed": [wish.text for wish in plain if wish.positive != wish.text],
        "negating": len(chosen),
        "recall_at_10": {way: found.mean() for way, found in scores.items()},
        "gain": {way: scores[way].compare(scores["as text"], seed=seed) for way in hits if way != "as text"},
    }
