"""What evaluating a model on labeled photos returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fashion_retrieval._utils.scores import (
    accuracy,
    accuracy_interval,
    expected_calibration_error,
    macro_f1,
    reliability,
    stratified_interval,
)
from fashion_retrieval._utils.significance import ItemScores
from fashion_retrieval.errors import InputError
from fashion_retrieval.images.inputs import ImageInput
from fashion_retrieval.results.board import Board, Tile
from fashion_retrieval.results.retrieval import Failure, Match
from fashion_retrieval.results.values import Box, Plain, jsonable

if TYPE_CHECKING:
    from PIL import Image

Interval = tuple[float, float]
_Measure = Callable[[NDArray[np.int64]], float]
_WORDS = {"accuracy": "accuracy", "macro_f1": "macro-F1", "calibration_error": "ECE"}


@dataclass(frozen=True, slots=True)
class Answer(Plain):
    """What a model said of one labeled photo.

    Attributes:
        index: The photo's position among those given, from 0.
        source: A short name of the photo.
        group: "category", "color" or an attribute group.
        label: The value that is right.
        said: The likeliest value by the model; None where it saw no color.
        probability: Of what was said, in [0, 1]; of a color, its share of the garment.
        label_probability: Of the right value, likewise.
    """

    index: int
    source: str
    group: str
    label: str
    said: str | None
    probability: float
    label_probability: float

    @property
    def right(self) -> bool:
        """Whether what was said is the label."""
        return self.said == self.label


@dataclass(frozen=True, slots=True)
class Bin(Plain):
    """Answers of about the same probability: where a model is calibrated, it is their accuracy.

    Attributes:
        probability: Its mean, in [0, 1].
        accuracy: Fraction that are right, in [0, 1].
        photos: How many.
    """

    probability: float
    accuracy: float
    photos: int


@dataclass(frozen=True, slots=True)
class ValueScores(Plain):
    """How well one value is recognized.

    Attributes:
        photos: How many have it as their label.
        recall: Fraction of them that are said to have it, in [0, 1].
        precision: Fraction right of those said to have it, in [0, 1]; None where it was never said.
    """

    photos: int
    recall: float
    precision: float | None


@dataclass(frozen=True, slots=True)
class GroupScores(Plain):
    """How well the values of one group are recognized; intervals are of 95%.

    Attributes:
        photos: How many have a label of the group.
        accuracy: Fraction that are right, in [0, 1].
        accuracy_interval: Wilson's, which holds for few photos too.
        macro_f1: Mean over the labels that occur of the F1 of each, in [0, 1].
        macro_f1_interval: Percentile bootstrap over photos.
        calibration_error: Mean distance of probability and accuracy over ten bins (ECE), in [0, 1]; None of colors,
            which have a share and no probability.
        calibration_error_interval: Percentile bootstrap over photos, less its bias.
        reliability: The bins that have photos, lowest probability first.
        values: By label that occurs.
    """

    photos: int
    accuracy: float
    accuracy_interval: Interval
    macro_f1: float
    macro_f1_interval: Interval
    calibration_error: float | None
    calibration_error_interval: Interval | None
    reliability: tuple[Bin, ...]
    values: dict[str, ValueScores]

    @classmethod
    def of(cls, answers: Sequence[Answer]) -> GroupScores:
        """Scores of at least one answer, all of one group."""
        rows, measures = np.arange(len(answers)), _measures(answers)
        found = {name: measure(rows) for name, measure in measures.items()}
        error = measures.get("calibration_error")
        bins = reliability(_confidence(answers), _right(answers)) if error else []
        return cls(
            photos=len(rows),
            accuracy=found["accuracy"],
            accuracy_interval=accuracy_interval(found["accuracy"], len(rows)),
            macro_f1=found["macro_f1"],
            macro_f1_interval=_interval(len(rows), measures["macro_f1"]),
            calibration_error=found.get("calibration_error"),
            calibration_error_interval=_calibration_interval(len(rows), error) if error else None,
            reliability=tuple(Bin(*one) for one in bins),
            values={label: _value_scores(answers, label) for label in sorted({answer.label for answer in answers})},
        )


@dataclass(frozen=True, slots=True)
class Difference(Plain):
    """How far one model is ahead of another in one measure on the same photos.

    Attributes:
        group: "category", "color" or an attribute group.
        measure: "accuracy", "macro_f1" or "calibration_error", of which less is better; or one of retrieval.
        first: The measure of the model that was compared.
        other: That of the other model.
        difference: `first` less `other`.
        interval: Its 95% interval, a paired percentile bootstrap over photos.
        p: Of accuracy and retrieval: two-sided, of an approximate randomization that swaps the two answers to a photo
            at random. It is not corrected for the number of comparisons.
    """

    group: str
    measure: str
    first: float
    other: float
    difference: float
    interval: Interval
    p: float | None


@dataclass(frozen=True, slots=True)
class Comparison(Plain):
    """Two models on the same photos; as a text it is a Markdown table.

    Attributes:
        first: What the model was loaded as that was compared.
        other: What the other was loaded as.
        differences: By group and measure.
    """

    first: str
    other: str
    differences: tuple[Difference, ...]

    def __str__(self) -> str:
        heading = (f"{self.first} against {self.other}", self.first, self.other, "difference", "p")
        rows = []
        for row in self.differences:
            ahead = f"{row.difference:+.3f} [{row.interval[0]:+.3f}, {row.interval[1]:+.3f}]"
            p = "" if row.p is None else "< 0.001" if row.p < 0.001 else f"{row.p:.3f}"
            rows.append(
                (
                    f"{row.group}, {_WORDS.get(row.measure, row.measure)}",
                    f"{row.first:.3f}",
                    f"{row.other:.3f}",
                    ahead,
                    p,
                )
            )
        return markdown(heading, rows)


@dataclass(frozen=True, slots=True)
class Evaluation(Plain):
    """How well a model recognizes labeled photos; as a text it is a Markdown table.

    Attributes:
        model_id: What the model was loaded as.
        groups: Scores by group.
        answers: What the model said, photo by photo in order.
        failures: The labeled photos that can't be read.
    """

    model_id: str
    groups: dict[str, GroupScores]
    answers: tuple[Answer, ...] = field(repr=False)
    failures: tuple[Failure, ...] = ()
    _photos: Mapping[int, tuple[ImageInput, Box | None]] = field(default_factory=dict, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready dict; numbers are rounded to six decimals."""
        return {item.name: jsonable(getattr(self, item.name)) for item in fields(self) if item.name[0] != "_"}

    def compare(self, other: Evaluation) -> Comparison:
        """How far this model is ahead of the other, in the groups that both were evaluated on.

        Raises:
            InputError: The photos or the labeled groups are not the same.
        """
        both = [group for group in self.groups if group in other.groups]
        differences = []
        for group in both:
            ours, theirs = self._of(group), other._of(group)
            if _asked(ours) != _asked(theirs):
                raise InputError(
                    f"two models can be compared on the same photos alone, got {len(ours)} and {len(theirs)} labeled "
                    f"photos of {group} that differ, or other labels; evaluate both on the same photos and labels"
                )
            differences += _differences(group, ours, theirs)
        if not both:
            got = f"{', '.join(self.groups)} and {', '.join(other.groups)}"
            raise InputError(f"two models can be compared on the same groups alone, got {got}; evaluate both on one")
        return Comparison(self.model_id, other.model_id, tuple(differences))

    def worst(self, count: int = 24, *, group: str | None = None) -> list[Answer]:
        """Wrong answers, the most probable first, of one group or of all."""
        if group is not None and group not in self.groups:
            raise InputError(f"group must be one of {', '.join(self.groups)}, got {group!r}")
        wrong = (answer for answer in self.answers if not answer.right and group in (None, answer.group))
        return sorted(wrong, key=lambda answer: -answer.probability)[:count]

    def draw(self, count: int = 24, *, group: str | None = None, width: int | None = None) -> Image.Image:
        """The worst answers as a board: photo, what was said and how probable it was, the label. An RGB image.

        Args:
            count: How many; at most 200.
            group: As in `worst`.
            width: As in `Recognition.draw`.
        """
        from fashion_retrieval.results.picture import picture_of  # what draws is loaded when it is used

        return picture_of(self._board(count, group), width=width)

    def to_html(self, count: int = 24, *, group: str | None = None) -> str:
        """The board of `draw` as a page of its own: selectable text, thumbnails inside it; nothing is fetched."""
        from fashion_retrieval.results.page import page_of

        return page_of(self._board(count, group))

    def __str__(self) -> str:
        heading = (self.model_id, "photos", *_WORDS.values())
        rows = []
        for name, one in self.groups.items():
            figures = (
                (one.accuracy, one.accuracy_interval),
                (one.macro_f1, one.macro_f1_interval),
                (one.calibration_error, one.calibration_error_interval),
            )
            rows.append((name, str(one.photos), *(_figure(*pair) for pair in figures)))
        return markdown(heading, rows)

    def _of(self, group: str) -> list[Answer]:
        return [answer for answer in self.answers if answer.group == group]

    def _board(self, count: int, group: str | None) -> Board:
        shown = self.worst(count, group=group)
        wrong = sum(not answer.right and group in (None, answer.group) for answer in self.answers)
        total = sum(group in (None, answer.group) for answer in self.answers)
        tiles = [self._tile(answer) for answer in shown]
        title = f"Where {Path(self.model_id).name or self.model_id} is most surely wrong"
        share = ", of a color its share" if any(answer.group == "color" for answer in shown) else ""
        told = f"{len(shown)} of {wrong} wrong answers, of {total} in all. Number: probability of what was said{share}."
        return Board(tuple(tiles), title=title, caption=told)

    def _tile(self, answer: Answer) -> Tile:
        said, label = ((value or "nothing").replace("_", " ") for value in (answer.said, answer.label))
        topic = f"{answer.group.replace('_', ' ')}: " if len(self.groups) > 1 else ""
        photo, box = self._photos.get(answer.index, (None, None))
        return Tile(Match(answer.source, answer.probability), f"{topic}{said}, labeled {label}", photo=photo, box=box)


def _asked(answers: Sequence[Answer]) -> list[tuple[int, str, str]]:
    return [(answer.index, answer.source, answer.label) for answer in answers]


def _right(answers: Sequence[Answer]) -> NDArray[np.bool_]:
    return np.array([answer.right for answer in answers])


def _confidence(answers: Sequence[Answer]) -> NDArray[np.float64]:
    return np.array([answer.probability for answer in answers], dtype=np.float64)


def _measures(answers: Sequence[Answer]) -> dict[str, _Measure]:
    """Each measure of a group as a function of the rows that it is taken over."""
    names = sorted({value or "" for answer in answers for value in (answer.label, answer.said)})
    places = {name: place for place, name in enumerate(names)}
    truth = np.array([places[answer.label] for answer in answers], dtype=np.int64)
    said = np.array([places[answer.said or ""] for answer in answers], dtype=np.int64)
    confidence = _confidence(answers)
    measures: dict[str, _Measure] = {
        "accuracy": lambda rows: accuracy(truth[rows], said[rows]),
        "macro_f1": lambda rows: macro_f1(truth[rows], said[rows]),
    }
    if answers[0].group != "color":
        measures["calibration_error"] = lambda rows: expected_calibration_error(confidence[rows], (truth == said)[rows])
    return measures


def _interval(count: int, measure: _Measure) -> Interval:
    low, high = stratified_interval([count], lambda drawn: measure(drawn[0]))
    return low, high


def _calibration_interval(count: int, measure: _Measure) -> Interval:
    """Shifted by as much as the draws are too high in the mean: of few photos each bin's error grows by chance."""
    drawn: list[float] = []

    def kept(rows: NDArray[np.int64]) -> float:
        drawn.append(measure(rows))
        return drawn[-1]

    interval = _interval(count, kept)
    bias = float(np.mean(drawn)) - measure(np.arange(count))
    low, high = (round(min(max(end - bias, 0.0), 1.0), 4) for end in interval)
    return low, high


def _differences(group: str, ours: Sequence[Answer], theirs: Sequence[Answer]) -> list[Difference]:
    measures, rows = (_measures(ours), _measures(theirs)), np.arange(len(ours))
    right = [ItemScores.of_groups([_right(answers)]) for answers in (ours, theirs)]
    p = right[0].compare(right[1])["p"]
    found = []
    for name in measures[0]:
        first, other = (one[name] for one in measures)
        values = first(rows), other(rows)
        interval = _interval(len(rows), _ahead(first, other))
        of_accuracy = p if name == "accuracy" else None
        found.append(Difference(group, name, *values, values[0] - values[1], interval, of_accuracy))
    return found


def _ahead(first: _Measure, other: _Measure) -> _Measure:
    return lambda rows: first(rows) - other(rows)


def _value_scores(answers: Sequence[Answer], label: str) -> ValueScores:
    labeled = [answer for answer in answers if answer.label == label]
    said = [answer for answer in answers if answer.said == label]
    hits = sum(answer.right for answer in labeled)
    return ValueScores(len(labeled), hits / len(labeled), hits / len(said) if said else None)


def _figure(value: float | None, interval: Interval | None) -> str:
    return "" if value is None or interval is None else f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"


def markdown(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose columns stand below each other as text, too."""
    widths = [max(map(len, column)) for column in zip(heading, *rows, strict=True)]
    lines = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in (heading, *rows)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
