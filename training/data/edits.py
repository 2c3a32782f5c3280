"""Edits after Fashion200k as TIRG uses it: one attribute value of a reference photo is replaced by another.

Vo et al., 2019, after Han et al., 2017. "Replace red with blue" of a red striped shirt: every blue striped shirt of the
gallery is right. From the labels of the open data pack; `training.data.fashion200k` reads the original.
"""

from __future__ import annotations

import tomllib
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fashion_retrieval.errors import ConfigError, InputError
from training.data.io import readable, shown
from training.data.manifest import GROUPS, Sample, labeled_samples

CONFIG = Path(__file__).parents[1] / "configs/edits.toml"
MOST = 200
"""Queries of each attribute group, unless said otherwise."""
_LABELS = ("category", "color", *GROUPS)
"""All that must agree but for the value that is replaced."""


@dataclass(frozen=True, slots=True)
class Edit:
    """A query: a reference photo, a text, and the ids of all photos that answer it."""

    reference: str
    text: str
    right: tuple[str, ...]  # of the gallery, at least one, never the reference
    group: str = ""  # of the attribute that is replaced; "" where it is not known
    old: str = ""  # its value, as the labels call it
    new: str = ""


@dataclass(frozen=True, slots=True)
class EditSet:
    """Queries and the gallery that they search, each without its own reference."""

    source: str
    split: str
    queries: tuple[Edit, ...]
    gallery: tuple[str, ...]  # ids, each once
    photos: Mapping[str, Path]  # by id, of gallery and references

    @property
    def right_rows(self) -> list[NDArray[np.int64]]:
        """Of each query the rows of the gallery that answer it, (n,) int64."""
        rows = {name: row for row, name in enumerate(self.gallery)}
        return [np.array([rows[name] for name in query.right], dtype=np.int64) for query in self.queries]

    @property
    def excluded_rows(self) -> NDArray[np.int64]:
        """(Q,) int64: the row of each query's reference in the gallery, or -1."""
        rows = {name: row for row, name in enumerate(self.gallery)}
        return np.array([rows.get(query.reference, -1) for query in self.queries], dtype=np.int64)


def edits(root: Path, split: str, *, most: int | None = MOST, seed: int = 0, training: bool = False) -> EditSet:
    """Edits of a split of the open data pack, from labeled photos of one garment; the photos are the gallery too.

    Right is every other photo whose garment has the new value and, of the reference's other known labels (category,
    color, texture, sleeve, length, neckline, fabric, fit), each.

    Args:
        root: The open data pack.
        split: Its split.
        most: At most so many queries of each attribute group, drawn by the seed; None takes all.
        seed: Seed of the draw and of the texts.
        training: Ask with the texts for training too.

    Raises:
        InputError: `most` is less than 1.
        ConfigError: Files have faults, photos can't be read, or no value can be replaced.
    """
    if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 1):
        raise InputError(f"most must be a whole number from 1 on or None, got {most!r}")
    samples = [sample for sample in labeled_samples(root, split) if sample.source != "street"]
    photos = {f"{sample.source}/{sample.id}": sample.photo for sample in samples}
    unreadable = [name for name, photo in photos.items() if not readable(photo)]
    if unreadable:
        raise ConfigError(f"{len(unreadable)} photos in {root} are missing or can't be read: {shown(unreadable)}")
    generator, words = np.random.default_rng(seed), read_words()
    queries = []
    for group, found in _possible(samples, [*photos], words).items():
        chosen = generator.permutation(len(found))[:most]
        texts = words["edits"][words["said"][group]]
        texts = texts + words["training"][words["said"][group]] if training else texts
        for row in sorted(chosen):
            text = texts[int(generator.integers(len(texts)))]
            also = words["training"][group][found[row].new]
            queries.append(_worded(found[row], text, words, also[int(generator.integers(len(also)))]))
    if not queries:
        raise ConfigError(f"no two garments of split {split!r} in {root} differ in one value; take another split")
    return EditSet("edits", split, tuple(queries), tuple(photos), photos)


def reworded(data: EditSet) -> dict[str, EditSet]:
    """The same wishes in each of the wordings, by the wording's name."""
    words = read_words()
    return {
        name: replace(data, queries=tuple(_worded(q, texts[words["said"][q.group]], words) for q in data.queries))
        for name, texts in words["wordings"].items()
    }


def with_wrong_references(data: EditSet, *, seed: int = 0) -> EditSet:
    """The same queries, each with another query's reference at random, which is not right itself.

    It is one of a query that replaces a value of the same group, where there is one.
    """
    generator = np.random.default_rng(seed)
    references: dict[str, list[str]] = {}
    for name, group in sorted({(query.reference, query.group) for query in data.queries}):
        references.setdefault(group, []).append(name)
    everywhere = sorted({name for names in references.values() for name in names})
    queries = []
    for query in data.queries:
        unfit = {query.reference, *query.right}
        other = _other(references[query.group], unfit, generator) or _other(everywhere, unfit, generator)
        if other is None:
            raise ConfigError(f"{data.source} need a third photo to ask with a wrong one; take more photos")
        queries.append(replace(query, reference=other))
    return replace(data, queries=tuple(queries))


def average_precision_at_10(hits: NDArray[np.bool_], right: NDArray[np.integer]) -> NDArray[np.float64]:
    """Average precision of the first ten results of each query.

    The sum, over the ranks up to 10 with a right photo, of the share of right photos up to that rank, divided by 10 or,
    if fewer are right, by their number: 1 if all of the ten, or all right ones first, are right.

    Args:
        hits: (Q, K) bool, K at least 10: whether the result of each rank is right; False behind the gallery's end.
        right: (Q,) integer: how many photos are right, at least 1.

    Returns:
        (Q,) float64 in [0, 1].
    """
    top = hits[:, :10].astype(np.float64)
    precision = top.cumsum(axis=1) / np.arange(1, 11)
    return np.asarray((precision * top).sum(axis=1) / np.minimum(right, 10))


def read_words() -> dict[str, Any]:
    """Phrases of values and texts of queries, as `edits.toml` has them."""
    return tomllib.loads(CONFIG.read_text(encoding="utf-8"))


def _possible(samples: Sequence[Sample], names: Sequence[str], words: Mapping[str, Any]) -> dict[str, list[Edit]]:
    """All edits by attribute group, without their texts."""
    labels = [{"category": s.category, "color": s.color, **s.attributes} for s in samples]
    values = {group: sorted({str(label[group]) for label in labels if label.get(group)}) for group in _LABELS}
    codes = np.array([[values[g].index(str(label[g])) if label.get(g) else -1 for g in _LABELS] for label in labels])
    found: dict[str, list[Edit]] = {group: [] for group in _LABELS[1:]}
    for row, known in enumerate(codes):
        differs = (codes != known) & (known >= 0)
        once = differs.sum(axis=1) == 1
        for column, group in enumerate(_LABELS[1:], 1):
            said, old = words["values"][group], labels[row].get(group)
            alike = once & differs[:, column]
            for code in np.unique(codes[alike, column]) if old in said else ():
                if code >= 0 and (new := values[group][int(code)]) in said:
                    right = tuple(names[int(i)] for i in np.flatnonzero(alike & (codes[:, column] == code)))
                    found[group].append(Edit(names[row], "", right, group, str(old), new))
    return found


def _other(names: Sequence[str], unfit: Container[str], generator: np.random.Generator) -> str | None:
    """One of the names at random that is not unfit, or None."""
    for row in generator.integers(len(names), size=8):  # nearly always enough; a list for each query takes long
        if names[int(row)] not in unfit:
            return names[int(row)]
    fit = [name for name in names if name not in unfit]
    return fit[int(generator.integers(len(fit)))] if fit else None


def _worded(edit: Edit, text: str, words: Mapping[str, Any], also: str = "") -> Edit:
    said = words["values"][edit.group]
    (old, was, _), (new, look, other) = said[edit.old], said[edit.new]
    phrases = {"old": old, "was": was, "new": new, "look": look, "else": other, "also": also}
    return replace(edit, text=text.format_map(phrases))
