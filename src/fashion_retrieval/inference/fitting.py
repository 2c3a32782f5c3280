"""From labeled photos to a probe of one attribute group, and how good it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fashion_retrieval._utils.optional import check_torch
from fashion_retrieval._utils.progress import tracked
from fashion_retrieval._utils.scores import accuracy, accuracy_interval, expected_calibration_error, macro_f1
from fashion_retrieval.config import Figure, ModelConfig, ProbeConfig
from fashion_retrieval.errors import InputError
from fashion_retrieval.images.inputs import ImageInput
from fashion_retrieval.images.pixels import Pixels, as_pixels
from fashion_retrieval.images.prefetch import read_photos
from fashion_retrieval.images.regions import check_boxes
from fashion_retrieval.inference.recognition import Photo, Recognizer, find_photo
from fashion_retrieval.models.probe import Probe
from fashion_retrieval.results import AttributeFit, Failure, FitScores, Segmenter
from fashion_retrieval.taxonomy import SHIPPED, Group, Taxonomy, plain_word

_RESERVED = frozenset({"category", "color", "id", "photo", "score"})


def listed(images: Iterable[ImageInput], boxes: Sequence[ArrayLike | None] | None) -> list[ImageInput]:
    """The photos; an InputError unless there is a box, or None, for each."""
    photos = list(images)
    if boxes is not None and len(boxes) != len(photos):
        raise InputError(f"images and boxes must be as many, got {len(photos)} and {len(boxes)}; None is no box")
    return photos


def read_labels(
    name: str, images: Sequence[ImageInput], labels: Iterable[str | None], taxonomy: Taxonomy
) -> tuple[list[str | None], Taxonomy, tuple[str, ...]]:
    """Labels as values of a group, the taxonomy that has them all, and the values that are new in it.

    A label is a value's name or one of its phrases, whatever its case; "-", "_" and " " are alike.
    """
    if not isinstance(name, str) or not name.strip() or name in _RESERVED:
        raise InputError(
            f"an attribute must be named by a text other than {', '.join(sorted(_RESERVED))}, got {name!r}"
        )
    given = list(labels)
    if len(given) != len(images):
        raise InputError(
            f"images and labels must be as many, got {len(images)} and {len(given)}; use None for no label"
        )
    wrong = next((i for i, label in enumerate(given) if label is not None and not _is_name(label)), None)
    if wrong is not None:
        raise InputError(f"labels[{wrong}] must be a value's name or None, got {given[wrong]!r:.80}")
    group = next((group for group in taxonomy.attributes if group.name == name), Group(name, (), ()))
    known = group.words
    for label in given:
        if label is not None:
            known.setdefault(plain_word(label), label.strip())
    values = [None if label is None else known[plain_word(label)] for label in given]
    check_counts(name, values)
    new = tuple(sorted({value for value in values if value} - {value.name for value in group.values}))
    return values, taxonomy.with_values(name, new), new


def check_counts(name: str, values: Iterable[str | None]) -> None:
    """Refuse labels of one value alone, or with a single example of a value."""
    counts = Counter(value for value in values if value is not None)
    if len(counts) < 2:
        got = f"only {next(iter(counts))!r}" if counts else "none"
        raise InputError(f"{name} needs labels of at least two values, got {got}; label photos of another value too")
    single = sorted(value for value, count in counts.items() if count < 2)
    if single:
        got = f"got 1 of {', '.join(single)}"
        raise InputError(f"{name} needs at least 2 photos of each value, {got}; add photos or correct the label")


def fit_group(
    recognizer: Recognizer,
    name: str,
    finder: Segmenter | None,
    images: Sequence[ImageInput],
    values: Sequence[str | None],
    boxes: Sequence[ArrayLike | None] | None,
    *,
    skip: bool,
    batch_size: int,
    max_pixels: int | None,
    progress: bool,
) -> tuple[Probe, AttributeFit]:
    """Fit a probe on the largest garment of each labeled photo, or on that in its box.

    The recognizer's taxonomy has the group with all values.
    """
    check_torch()
    group = next(group for group in recognizer.taxonomy.attributes if group.name == name)
    chosen = [place for place, value in enumerate(values) if value is not None]
    parts: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = []
    truth: list[str] = []
    failures: list[Failure] = []
    reading: dict[str, Any] = {"skip": skip, "batch_size": batch_size, "max_pixels": max_pixels}
    batches = labeled_photos(recognizer, finder, images, chosen, boxes, failures, **reading)
    steps = -(-len(chosen) // batch_size)
    for batch in tracked(batches, "looking at photos", steps, shown=progress, unit="batches"):
        if batch:
            parts.append(recognizer.views([photo for *_, photo in batch], batch_size=batch_size))
            truth += [values[place] or "" for place, *_ in batch]
    check_counts(name, truth)
    counts = Counter(truth)
    fitted = [value.name for value in group.values if value.name in counts]
    columns = [place for place, value in enumerate(group.values) if value.name in counts]
    views, categories = (np.concatenate(rows) for rows in zip(*parts, strict=True))
    by_prompts = recognizer.by_prompts(views, categories, group)[:, columns]
    by_prompts = by_prompts / by_prompts.sum(1, keepdims=True)
    labels = np.array([fitted.index(value) for value in truth])
    from fashion_retrieval.models.probe_fit import fit

    probe, unseen = fit(views, by_prompts, labels, fitted)
    if (earlier := recognizer.probes.get(name)) is not None:  # what is not visible stays so
        probe = probe.with_rows(earlier, {value.name for value in group.values if value.absent} - counts.keys())
    return probe, AttributeFit(
        group=name,
        examples={value: counts[value] for value in fitted},
        fitted=scores(unseen, labels),
        prompts=scores(by_prompts, labels),
        unlabeled=len(values) - len(chosen),
        failures=tuple(failures),
    )


def with_probe(
    config: ModelConfig, taxonomy: Taxonomy, probe: Probe, fitted: AttributeFit, fingerprint: str
) -> ModelConfig:
    """The configuration of a model that got a probe: with its taxonomy, what was fitted, and its scores."""
    shipped = taxonomy.name in SHIPPED and Taxonomy.load(taxonomy.name) == taxonomy
    about = ProbeConfig(values=probe.values, encoder=fingerprint)
    given = f"cross-validated on the {sum(fitted.examples.values())} photos it was fitted on"
    common: dict[str, Any] = {"task": "image-classification", "data": given}
    named = {
        f"{fitted.group}, accuracy": Figure(
            value=fitted.fitted.accuracy, interval=fitted.fitted.interval, metric="accuracy", **common
        ),
        f"{fitted.group}, macro-F1": Figure(value=fitted.fitted.macro_f1, metric="macro-F1", **common),
    }
    return replace(
        config,
        taxonomy=taxonomy.name if shipped else taxonomy.to_dict(),
        probes={**config.probes, fitted.group: about},
        figures={**config.figures, **named},
    )


def scores(probabilities: NDArray[np.floating[Any]], truth: NDArray[np.int64]) -> FitScores:
    """Scores of (n, values) probabilities, each row summing to 1, for (n,) labels."""
    confidence, predicted = probabilities.max(1).astype(np.float64), probabilities.argmax(1)
    right = accuracy(truth, predicted)
    error = expected_calibration_error(confidence, predicted == truth)
    return FitScores(right, accuracy_interval(right, len(truth)), macro_f1(truth, predicted), error)


def labeled_photos(
    recognizer: Recognizer,
    finder: Segmenter | None,
    images: Sequence[ImageInput],
    chosen: Sequence[int],
    boxes: Sequence[ArrayLike | None] | None,
    failures: list[Failure],
    **reading: Any,  # noqa: ANN401  # of `read_photos`
) -> Iterator[list[tuple[int, str, Photo]]]:
    """Batches of the chosen images: place, name, and the photo with its one garment; the others join the failures."""
    reader = read_photos(
        [images[place] for place in chosen],
        Pixels.upright,
        ahead=recognizer.towers.ahead,
        label=lambda index: f"images[{chosen[index]}]",
        **reading,
    )
    for batch in reader:
        photos = []
        for one in batch:
            place = chosen[one.index]
            if one.error is not None:
                failures.append(Failure(place, one.name, one.error))
            elif one.content is not None:
                box = None if boxes is None else boxes[place]
                photos.append((place, one.name, one_garment(one.content, box, finder, place)))
        yield photos


def one_garment(
    photo: Pixels | NDArray[np.uint8], box: ArrayLike | None, finder: Segmenter | None, place: int
) -> Photo:
    """The photo with the region of the garment in the box or, without one, its largest; else the whole photo."""
    pixels, boxes = as_pixels(photo), None
    one: Any = [box]
    if box is not None:
        try:
            boxes = check_boxes(one, pixels.width, pixels.height)
        except InputError as error:
            raise InputError(f"boxes[{place}]{str(error).removeprefix('boxes[0]').removeprefix('boxes')}") from error
    found = find_photo(pixels, boxes, finder)
    if not found.regions:
        found = find_photo(pixels, None, None)
    return replace(found, regions=[max(found.regions, key=lambda region: region.mask.sum())])


def _is_name(label: object) -> bool:
    return isinstance(label, str) and bool(label.strip())
