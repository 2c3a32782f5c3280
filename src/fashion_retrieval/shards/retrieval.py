"""How well texts or photos find their photos in the rows of Parquet files, as published benchmarks keep them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from fashion_retrieval._utils.checks import check_reading
from fashion_retrieval._utils.files import read_object
from fashion_retrieval._utils.optional import imported
from fashion_retrieval._utils.progress import tracked
from fashion_retrieval._utils.ranking import top_rows
from fashion_retrieval._utils.scores import mean_interval
from fashion_retrieval._utils.significance import ItemScores
from fashion_retrieval.errors import InputError
from fashion_retrieval.results import Comparison, Failure
from fashion_retrieval.results.evaluation import Difference, markdown
from fashion_retrieval.results.values import Plain, jsonable

if TYPE_CHECKING:
    from fashion_retrieval.model import FashionModel

OnError = Literal["raise", "skip"]
_DEPTH = 10
_BATCH = 64
"""Rows read at a time."""
_WORDS = {"recall_at_1": "R@1", "recall_at_10": "R@10", "precision_at_1": "P@1", "precision_at_10": "P@10"} | {
    "hit_at_10": "hit@10",
    "mrr": "MRR",
}


@dataclass(frozen=True, slots=True)
class RetrievalEvaluation(Plain):
    """How well queries find their photos; as a text it is a Markdown table.

    Attributes:
        model_id: What the model was loaded as.
        name: What the queries are: their column or file.
        queries: How many.
        gallery: How many photos are searched.
        scores: Means over queries, in [0, 1]: `recall_at_1` and `_10`, the share of a query's right photos among the
            first; `precision_at_1` and `_10`, the share of right photos among the first; `hit_at_10`, whether there is
            one; `mrr`, one over the rank of the first right one, 0 behind the tenth.
        intervals: Their 95% percentile bootstraps over queries.
        failures: Photos that can't be read, left out.
    """

    model_id: str
    name: str
    queries: int
    gallery: int
    scores: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    failures: tuple[Failure, ...] = ()
    _values: Mapping[str, NDArray[np.float64]] = field(default_factory=dict, repr=False, compare=False)
    _asked: Sequence[str] = field(default=(), repr=False, compare=False)  # texts, or what photos have in common

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready dict; numbers are rounded to six decimals."""
        return {item.name: jsonable(getattr(self, item.name)) for item in fields(self) if item.name[0] != "_"}

    def compare(self, other: RetrievalEvaluation) -> Comparison:
        """How far this model is ahead of the other, by queries; both had the same queries and gallery.

        Raises:
            InputError: They had others.
        """
        ours, theirs = ((one.name, one.queries, one.gallery) for one in (self, other))
        if ours != theirs or list(self._asked) != list(other._asked):
            raise InputError(
                f"two models can be compared on the same queries and gallery alone, got {ours} and {theirs}"
            )
        found = []
        for name, values in self._values.items():
            ahead = ItemScores.of_groups([values]).compare(ItemScores.of_groups([other._values[name]]))
            first, second, interval = self.scores[name], other.scores[name], ahead["interval"]
            found.append(
                Difference(self.name, _WORDS[name], first, second, ahead["difference"], tuple(interval), ahead["p"])
            )
        return Comparison(self.model_id, other.model_id, tuple(found))

    def __str__(self) -> str:
        figures = [
            f"{score:.3f} [{self.intervals[name][0]:.3f}, {self.intervals[name][1]:.3f}]"
            for name, score in self.scores.items()
        ]
        heading = (self.model_id, "queries", "photos", *(_WORDS[name] for name in self.scores))
        return markdown(heading, [(self.name, str(self.queries), str(self.gallery), *figures)])


class PhotoTable:
    """The rows of Parquet files with photos inside, as `datasets` writes them: a column `image` of files' bytes.

    Raises:
        InputError: There is no such file, it is no Parquet file, or it has no such column.
        MissingExtraError: pyarrow is not installed.
    """

    def __init__(self, sources: Sequence[Path]) -> None:
        self._parquet = imported("pyarrow.parquet", "parquet")
        self._files = [file for source in sources for file in _files_of(source)]
        self.columns: dict[str, list[Any]] = {}

    def column(self, name: str) -> list[Any]:
        """The values of a column, row by row."""
        if name not in self.columns:
            self.columns[name] = [row[name] for row in self._rows(name)]
        return self.columns[name]

    def photos(self) -> Iterator[bytes]:
        """The bytes of each photo's file; empty where a row has none."""
        for row in self._rows("image"):
            cell = row["image"]
            found = cell.get("bytes") if isinstance(cell, Mapping) else cell
            yield found if isinstance(found, bytes) else b""

    def _rows(self, column: str) -> Iterator[dict[str, Any]]:
        for path in self._files:
            try:
                with self._parquet.ParquetFile(path) as file:
                    names = file.schema_arrow.names
                    if column not in names:
                        raise InputError(f"{path} must have a column {column!r}, got {', '.join(names)!r:.120}")
                    for batch in file.iter_batches(_BATCH, columns=[column]):
                        yield from batch.to_pylist()
            except (OSError, ValueError) as error:  # pyarrow's own errors are these
                if isinstance(error, InputError):
                    raise
                reason = " ".join(str(error).split())
                raise InputError(f"{path} can't be read as Parquet ({reason:.160}); download it again") from error


def evaluate_retrieval(
    model: FashionModel,
    gallery: Sequence[Path],
    queries: str | Path,
    *,
    relevant: Sequence[str] = (),
    truth: Path | None = None,
    text_weight: float = 0.0,
    batch_size: int = 32,
    max_pixels: int | None = None,
    on_error: OnError = "skip",
    progress: bool = False,
) -> RetrievalEvaluation:
    """Search whole photos by cosine, and count what is found among the first ten.

    Args:
        model: What encodes.
        gallery: Parquet files or folders of them, with a column `image`.
        queries: A column of the gallery, each text of which is to find its own rows; or a Parquet file of photos.
        relevant: For photos as queries: columns that a right photo has in common with the query, all of them.
        truth: For texts: a JSON file, {text: {item: 1}}, that says which texts are asked and which items, by the
            column `item_ID`, are right; None asks each text.
        text_weight: Share in [0, 1) of the embedding of the column `text` in what is searched.
        batch_size: How many go through the model at a time.
        max_pixels: As in `FashionModel.recognize`.
        on_error: What a photo that can't be read does: "skip" leaves it out and lists it, "raise" raises its error.
        progress: Show progress bars on stderr.

    Raises:
        InputError: Files, columns or arguments can't be used, or there is nothing to ask or to find.
    """
    check_reading(max_pixels, batch_size, on_error)
    by_photo = isinstance(queries, Path)
    if by_photo != bool(relevant) or (by_photo and truth):
        raise InputError("photos as queries need relevant= and take no truth=, texts take no relevant=; correct it")
    if not 0 <= text_weight < 1:
        raise InputError(f"text_weight must be in [0, 1), got {text_weight}; 0.1 is what Marqo published with")
    reading: dict[str, Any] = {"batch_size": batch_size, "max_pixels": max_pixels, "on_error": on_error}
    table, failures = PhotoTable(gallery), list[Failure]()
    asking = PhotoTable([queries]) if isinstance(queries, Path) else table
    keys = _keys(asking, relevant) if by_photo else []
    items = table.column("item_ID") if truth else _keys(table, relevant) if by_photo else table.column(str(queries))
    wanted = _read_truth(truth) if truth else {}
    told = table.column("text") if text_weight else []
    searched, rows = _encode(model, table, failures, reading, progress)
    words = [str(told[row] or "").strip() for row in rows] if told else []
    if places := [place for place, text in enumerate(words) if text]:
        of_texts = model.encode(texts=[words[place] for place in places], batch_size=batch_size)
        searched[places] = (1 - text_weight) * searched[places] + text_weight * of_texts
    names = [str(items[row]) if truth else row for row in rows]
    if isinstance(queries, Path):
        asked, numbers = _encode(model, asking, failures, reading, progress)
        groups = _groups([items[row] for row in rows], rows)
        wishes = [keys[number] for number in numbers]
        right = [groups.get(wish, set()) for wish in wishes]
    else:
        groups = wanted if truth else _groups([items[row] for row in rows], rows)
        wishes = [text for text in groups if isinstance(text, str) and text.strip()]
        right = [groups[text] for text in wishes]
        asked = model.encode(texts=wishes, batch_size=batch_size) if wishes else np.empty((0, 1), np.float32)
    if not len(asked) or not len(searched):
        raise InputError(f"expected queries and photos to search, got {len(asked)} and {len(searched)}")
    top = top_rows(asked, searched, _DEPTH, np.full(len(asked), -1))
    values = _score([[names[row] for row in line if row >= 0] for line in top.tolist()], right)
    return RetrievalEvaluation(
        model.model_id,
        queries.name if isinstance(queries, Path) else queries,
        len(asked),
        len(searched),
        {name: float(of.mean()) for name, of in values.items()},
        {name: (low, high) for name, of in values.items() for low, high in [mean_interval(of)]},
        tuple(failures),
        values,
        wishes,
    )


def _score(found: Sequence[Sequence[Any]], right: Sequence[set[Any]]) -> dict[str, NDArray[np.float64]]:
    """Each measure by query, from the first items of each and those that are right."""
    hits = np.zeros((len(found), _DEPTH))
    for place, (line, wanted) in enumerate(zip(found, right, strict=True)):
        distinct = dict.fromkeys(line)  # an item may have several photos
        hits[place, : len(distinct)] = [item in wanted for item in distinct]
    counts = np.array([max(len(wanted), 1) for wanted in right])
    ranks = np.where(hits.any(axis=1), hits.argmax(axis=1) + 1, np.inf)
    return {
        "recall_at_1": hits[:, 0] / counts,
        "recall_at_10": hits.sum(axis=1) / counts,
        "precision_at_1": hits[:, 0],
        "precision_at_10": hits.sum(axis=1) / _DEPTH,
        "hit_at_10": hits.any(axis=1).astype(np.float64),
        "mrr": 1 / ranks,
    }


def _encode(
    model: FashionModel, table: PhotoTable, failures: list[Failure], reading: dict[str, Any], progress: bool
) -> tuple[NDArray[np.float32], list[int]]:
    """Embeddings of the photos that can be read, (N, D), and their rows; the others join the failures."""
    found, rows = [], []
    encoded = model.encode_iter(table.photos(), **reading)
    for one in tracked(encoded, f"encoding by {model.model_id}", None, shown=progress):
        if isinstance(one.embedding, Failure):
            failures.append(one.embedding)
        else:
            found.append(one.embedding)
            rows.append(one.index)
    return np.stack(found) if found else np.empty((0, model.embedding_dim), np.float32), rows


def _keys(table: PhotoTable, columns: Sequence[str]) -> list[str]:
    """What rows have in common: the values of all columns, as JSON."""
    rows = zip(*(table.column(name) for name in columns), strict=True)
    return [json.dumps(row, sort_keys=True, default=str) for row in rows]


def _groups(keys: Sequence[Any], rows: Sequence[int]) -> dict[Any, set[Any]]:
    groups: dict[Any, set[Any]] = {}
    for key, row in zip(keys, rows, strict=True):
        groups.setdefault(key, set()).add(row)
    return groups


def _read_truth(path: Path) -> dict[Any, set[Any]]:
    expected = "an object of texts, each with an object of items and 1"
    found = read_object(path, remedy=f"expected {expected}")
    if not all(isinstance(items, dict) for items in found.values()):
        raise InputError(f"{path} must hold {expected}; see Marqo's gt_query_doc")
    return {text: {item for item, grade in items.items() if grade} for text, items in found.items()}


def _files_of(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    if found := sorted(source.rglob("*.parquet")):
        return found
    raise InputError(f"expected a Parquet file or a folder with some, found none at {source}; check the path")
