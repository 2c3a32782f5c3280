"""From labeled photos to how well a model recognizes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import ArrayLike

from fashion_retrieval._utils.progress import tracked
from fashion_retrieval.errors import InputError
from fashion_retrieval.images.inputs import ImageInput
from fashion_retrieval.inference.colors import PALETTE
from fashion_retrieval.inference.fitting import labeled_photos
from fashion_retrieval.inference.recognition import Recognizer
from fashion_retrieval.results import Failure, Garment, Segmenter
from fashion_retrieval.results.evaluation import Answer, Evaluation, GroupScores
from fashion_retrieval.taxonomy import Group, Taxonomy, Value, plain_word

_COLOR = Group("color", (), tuple(Value(name, (name,)) for name in PALETTE))
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Truth:
    """Labels as values of a taxonomy.

    Attributes:
        values: By group a value for each photo, or None.
        taxonomy: What they are of, with no other attribute groups; each is asked of every garment.
    """

    values: Mapping[str, Sequence[str | None]]
    taxonomy: Taxonomy

    @property
    def top_k(self) -> int:
        """So many alternatives are all values of every group."""
        return max(len(group.values) for group in (self.taxonomy.category, *self.taxonomy.attributes))

    @property
    def chosen(self) -> list[int]:
        """Positions of the photos that have a label."""
        return [place for place, row in enumerate(zip(*self.values.values(), strict=True)) if any(row)]


def read_truth(labels: Mapping[str, Sequence[str | None]], count: int, taxonomy: Taxonomy) -> Truth:
    """Labels by group, for each of `count` photos one or None; names and phrases of the taxonomy's values.

    Raises:
        InputError: No such group, a label that is no value, not as many as photos, or none.
    """
    groups = {group.name: group for group in (taxonomy.category, _COLOR, *taxonomy.attributes)}
    if not isinstance(labels, Mapping) or not labels:
        expected = "a mapping from groups to a label for each photo, {'category': [...]}"
        raise InputError(f"labels must be {expected}, got {type(labels).__name__ if labels else 'none'}")
    if unknown := [str(name) for name in labels if name not in groups]:
        raise InputError(f"labels must be of the groups {', '.join(groups)}, got {', '.join(unknown)}; rename it")
    values = {name: _values(groups[name], given, count) for name, given in labels.items()}
    asked = tuple(replace(group, applies_to=None) for group in taxonomy.attributes if group.name in labels)
    return Truth(values, replace(taxonomy, attributes=asked))


def _values(group: Group, labels: Sequence[str | None], count: int) -> list[str | None]:
    if not isinstance(labels, Iterable) or isinstance(labels, str):
        raise InputError(f"labels of {group.name} must be a list with a label for each photo, got {labels!r:.80}")
    given = list(labels)
    if len(given) != count:
        raise InputError(
            f"images and labels must be as many, got {count} and {len(given)} of {group.name}; use None for no label"
        )
    if wrong := [label for label in given if label is not None and not isinstance(label, str)]:
        raise InputError(f"labels of {group.name} must be a value's name or None, got {wrong[0]!r:.80}")
    known = group.words
    unknown = Counter(label for label in given if label is not None and plain_word(label) not in known)
    if unknown:
        more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
        got = ", ".join(f"{label!r:.40} ({times}x)" for label, times in unknown.most_common(_SHOWN))
        some = ", ".join(value.name for value in group.values)
        raise InputError(
            f"labels of {group.name} must be values of the taxonomy or their phrases, got {got}{more}; "
            f"correct them, or give a taxonomy that has them; this one has {some}"
        )
    if not any(label is not None for label in given):
        raise InputError(f"{group.name} must have a label for at least one photo, got none; leave the group out")
    return [None if label is None else known[plain_word(label)] for label in given]


def evaluate_photos(
    recognizer: Recognizer,
    finder: Segmenter | None,
    images: Sequence[ImageInput],
    truth: Truth,
    boxes: Sequence[ArrayLike | None] | None,
    *,
    skip: bool,
    batch_size: int,
    max_pixels: int | None,
    progress: bool,
) -> Evaluation:
    """What the recognizer says of the largest garment of each labeled photo, or of that in its box.

    The recognizer has the taxonomy and the `top_k` of `truth`.

    Raises:
        InputError: No labeled photo can be read, or a box can't be used.
    """
    chosen = truth.chosen
    answers: list[Answer] = []
    failures: list[Failure] = []
    shown = {}
    reading: dict[str, Any] = {"skip": skip, "batch_size": batch_size, "max_pixels": max_pixels}
    batches = labeled_photos(recognizer, finder, images, chosen, boxes, failures, **reading)
    steps = -(-len(chosen) // batch_size)
    for batch in tracked(batches, f"evaluating {recognizer.model_id}", steps, shown=progress, unit="batches"):
        found = recognizer.recognize([photo for *_, photo in batch], batch_size=batch_size)
        for (place, name, photo), recognition in zip(batch, found, strict=True):
            boxed = boxes is not None and boxes[place] is not None
            shown[place] = images[place], photo.regions[0].box if boxed else None
            answers += _answers(recognition.garments[0], place, name, truth)
    if not answers:
        first = f"; the first: {failures[0].error}" if failures else ""
        raise InputError(f"at least one labeled photo must be readable, got {len(failures)} that can't be read{first}")
    by_group = {name: [answer for answer in answers if answer.group == name] for name in truth.values}
    groups = {name: GroupScores.of(found) for name, found in by_group.items() if found}
    return Evaluation(recognizer.model_id, groups, tuple(answers), tuple(failures), shown)


def _answers(garment: Garment, place: int, name: str, truth: Truth) -> list[Answer]:
    found = []
    for group, values in truth.values.items():
        label = values[place]
        if label is None:
            continue
        if group == "color":
            scores = [(color.name, color.share) for color in garment.colors]
        else:
            ranked = garment.categories if group == "category" else garment.attributes[group].alternatives
            scores = [(score.name, score.probability) for score in ranked]
        said, probability = scores[0] if scores else (None, 0.0)
        found.append(Answer(place, name, group, label, said, probability, dict(scores).get(label, 0.0)))
    return found
