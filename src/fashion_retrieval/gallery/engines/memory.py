"""Exact search in memory: a snapshot of a LanceDB table that reads only what was written since.

A search scores int8 codes of all rows, which leaves few candidates, and decides among these in float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import reduce
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fashion_retrieval._utils.cpu import threads as cpu_threads
from fashion_retrieval.gallery.filters import Filter, Operator, Values, like_pieces
from fashion_retrieval.inference.vectors import restored

if TYPE_CHECKING:
    import pyarrow as pa
    from lancedb.table import Table

BYTES_OF_CODE = 1
"""Memory for one number of a vector, beside the number as it is stored."""
_ADDRESS = "_rowaddr"
"""Where LanceDB keeps a row. Rows that are written or moved get higher addresses than all before them, also in tables
whose row *ids* are stable (LanceDB's option `new_table_enable_stable_row_ids`)."""
_VECTOR = "vector"
_MAX_CODE = 127
_BLOCK = 256
"""Rows encoded at a time, so that the work stays in the processor's cache."""
_GROUP = 16
"""Rows of which the highest score stands for all where a bound is enough."""
_GROWTH = 1.25
_FEW = 512
"""Up to this many rows are scored in float32 at once."""
_COPY_COST = 5
"""How many times the time of scoring a row it takes to copy it first."""
_THREADS_FROM = 1 << 22
"""Bytes of codes from which on they are shared among threads."""
_ONE_BY_ONE = 64
_ROUNDING = 1e-5
"""Upper bound of the error of a float32 score."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The rows of a table at one version.

    `columns` are all but the vectors, and the address of each row; `scan` has the vectors in the same order, and rows
    of later versions may follow them. `alive`, (N,) bool, is False for rows removed or replaced after they were read.
    """

    columns: pa.Table
    scan: ExactScan
    alive: NDArray[np.bool_]

    @classmethod
    def load(cls, table: Table) -> Snapshot:
        """Read all rows of a table, at the version it is checked out at."""
        import pyarrow as pa

        fields = [field for field in table.schema if field.name != _VECTOR]
        columns = pa.schema([*fields, pa.field(_ADDRESS, pa.uint64())]).empty_table()
        kept = table.schema.field(_VECTOR).type
        scan = ExactScan(kept.list_size, table.count_rows(), kept.value_type.to_pandas_dtype())
        return cls(columns, scan, np.empty(0, np.bool_))._extended(table, None)

    def refresh(self, table: Table) -> Snapshot | None:
        """The rows of a later version, in the same memory; None where it is better to load them anew.

        Searches of this snapshot may go on meanwhile.
        """
        if not len(self.columns):
            return None
        known, alive = self.columns[_ADDRESS].to_numpy(), self.alive
        query: Any = table.search()
        present = query.select([_ADDRESS]).limit(max(table.count_rows(), 1)).to_arrow()[_ADDRESS].to_numpy()
        kept = present[present <= known.max()]
        if not np.array_equal(known[alive], kept):  # a return to an earlier version brings rows back
            alive = np.isin(known, kept)
        if np.count_nonzero(alive) != len(kept) or len(kept) < len(alive) / 2:
            return None
        return replace(self, alive=alive)._extended(table, f"{_ADDRESS} > {known.max()}")

    def _extended(self, table: Table, condition: str | None) -> Snapshot:
        """These rows, and after them the rows of the table for which the condition is true."""
        import pyarrow as pa

        names, end, pieces = self.columns.schema.names, len(self.columns), [self.columns]
        query: Any = table.search()
        if condition:
            query = query.where(condition)
        for batch in query.select([*names, _VECTOR]).limit(max(table.count_rows(), 1)).to_batches():
            self.scan.add(end, batch[_VECTOR].flatten().to_numpy().reshape(len(batch), -1))
            pieces.append(pa.Table.from_batches([batch]).select(names))
            end += len(batch)
        alive = np.concatenate([self.alive, np.ones(end - len(self.columns), np.bool_)])
        return Snapshot(pa.concat_tables(pieces).combine_chunks(), self.scan, alive)

    def nearest(
        self, query: NDArray[np.float32], limit: int, where: Filter | None, columns: Mapping[str, str]
    ) -> tuple[dict[str, list[Any]], NDArray[np.float32]]:
        """The `limit` rows nearest to an L2-normalized query by cosine, and their vectors (M, D) float32; exact.

        The rows are their values by column.
        """
        allowed = self.alive if where is None else self.alive & matching(where, self.columns, columns)
        numbers = self.scan.nearest(query, limit, allowed)
        names = [name for name in self.columns.schema.names if name != _ADDRESS]
        return {name: _taken(self.columns[name], numbers) for name in names}, self.scan.rows(numbers)


def _taken(column: pa.ChunkedArray, numbers: NDArray[np.intp]) -> list[Any]:
    """The values in these places; a few are got one by one in a third of the time of `take`."""
    import pyarrow as pa

    values = column.chunk(0) if column.num_chunks == 1 else column
    if len(numbers) > _ONE_BY_ONE:
        return list(values.take(pa.array(numbers)).to_pylist())
    return [values[number].as_py() for number in numbers.tolist()]


def matching(condition: Filter, table: pa.Table, columns: Mapping[str, str]) -> NDArray[np.bool_]:
    """(N,) bool: for which rows the condition is true."""
    import pyarrow as pa
    import pyarrow.compute as pc

    functions = {"=": pc.equal, "!=": pc.not_equal, "<": pc.less, "<=": pc.less_equal, ">": pc.greater}
    functions |= {">=": pc.greater_equal, "null": pc.is_null, "not null": pc.is_valid}

    def compare(field: str, operator: Operator, values: Values) -> NDArray[np.bool_]:
        column = table[columns[field]]
        if operator.endswith("in") and pa.types.is_floating(column.type) and 0 in values:
            values = (*values, 0.0, -0.0)  # which `is_in` tells apart
        wanted = pa.array(values, column.type)
        if operator.endswith("in"):
            found = pc.and_(pc.is_in(column, wanted), pc.is_valid(column))
        elif operator.endswith("like"):
            found = _like(column, str(values[0]))
        else:
            found = functions[operator](column, *wanted)
        if operator in ("not in", "not like"):
            found = pc.and_(pc.invert(found), pc.is_valid(column))
        mask: NDArray[np.bool_] = pc.fill_null(found, False).to_numpy()
        return mask

    def join(operator: Literal["and", "or"], masks: list[NDArray[np.bool_]]) -> NDArray[np.bool_]:
        return reduce(np.logical_and if operator == "and" else np.logical_or, masks)

    return condition.render(compare, join)


def _like(column: pa.ChunkedArray, pattern: str) -> pa.ChunkedArray:
    import pyarrow.compute as pc

    if "\\" not in pattern:
        return pc.match_like(column, pattern)
    # `match_like` takes some escapes of a pattern that begins or ends with % as they stand.
    wildcards = {"%": ".*", "_": "."}
    pieces = (wildcards[text] if wildcard else f"\\x{{{ord(text):x}}}" for text, wildcard in like_pieces(pattern))
    return pc.match_substring_regex(column, f"(?s)\\A{''.join(pieces)}\\z")


class ExactScan:
    """L2-normalized rows to be searched by cosine.

    A row v is kept as it is stored and as a scale s times a code c of whole numbers from -127 to 127; the residual is
    |v - s c|. With the query coded in the same way, a score by codes is off by at most the two residuals
    (Cauchy-Schwarz). So all rows that may be among the nearest are known, and only these are scored in float32.
    """

    def __init__(self, dim: int, capacity: int = 0, dtype: DTypeLike = np.float32) -> None:
        self._rows = np.empty((capacity, dim), dtype)
        self._codes = np.empty((capacity, dim), np.int8)
        self._scales = np.empty(capacity, np.float32)
        self._residuals = np.empty(capacity, np.float32)

    def add(self, start: int, rows: NDArray[Any]) -> None:
        """Set (M, D) rows as stored from number `start` on. Searches of the rows before may go on meanwhile."""
        needed = start + len(rows)
        if needed > len(self._rows):
            for name in ("_rows", "_codes", "_scales", "_residuals"):
                before = getattr(self, name)
                grown = np.empty((int(needed * _GROWTH), *before.shape[1:]), before.dtype)
                grown[:start] = before[:start]
                setattr(self, name, grown)
        for first in range(0, len(rows), _BLOCK):
            block = rows[first : first + _BLOCK]
            place = slice(start + first, start + first + len(block))
            self._rows[place] = block
            self._codes[place], self._scales[place], self._residuals[place] = _encoded(restored(block))

    def rows(self, numbers: NDArray[np.intp]) -> NDArray[np.float32]:
        """(M, D) float32, the rows of these numbers."""
        return restored(self._rows[numbers])

    def nearest(self, query: NDArray[np.float32], limit: int, allowed: NDArray[np.bool_]) -> NDArray[np.intp]:
        """The numbers of the rows nearest to an L2-normalized (D,) float32, best first.

        `allowed`, (N,) bool, tells which of the first N rows count; where they are fewer than `limit`, all are given.
        """
        possible = int(np.count_nonzero(allowed))
        limit = min(limit, possible)
        if possible > max(limit, _FEW):
            numbers = self._candidates(query, limit, allowed, possible)
        else:
            numbers = np.flatnonzero(allowed)
        best: NDArray[np.intp] = numbers[np.argsort(-(self.rows(numbers) @ query), kind="stable")[:limit]]
        return best

    def _candidates(
        self, query: NDArray[np.float32], limit: int, allowed: NDArray[np.bool_], possible: int
    ) -> NDArray[np.intp]:
        """The allowed rows, `possible` in number, that may be among the nearest."""
        code, scale, residual = _encoded(query[np.newaxis])
        count = len(allowed)
        chosen = slice(0, count) if possible == count else np.flatnonzero(allowed)
        if possible < count / _COPY_COST:
            scores = _products(code, self._codes[chosen])
        else:
            scores = _products(code, self._codes[:count])[chosen]
        scores = scores * (self._scales[chosen] * scale)
        residuals = self._residuals[chosen]
        error = float(residual[0]) + _ROUNDING
        max_error = error + float(residuals.max()) * (1 + error)
        near = np.flatnonzero(scores >= _bound(scores, limit) - 2 * max_error)
        scores, errors = scores[near], error + residuals[near] * (1 + error)
        near = near[scores + errors >= _highest(scores - errors, limit)]
        return near if isinstance(chosen, slice) else chosen[near]


def _products(code: NDArray[np.int8], codes: NDArray[np.int8]) -> NDArray[np.float32]:
    """(N,) float32, the products of a (1, D) int8 code with (N, D) int8 codes."""
    from numkong import cdist

    def of_part(start: int) -> NDArray[np.float32]:
        return np.asarray(cdist(code, codes[start : start + step], "dot", out_dtype="float32")).reshape(-1)

    threads = cpu_threads() if codes.size > _THREADS_FROM else 1
    step = -(-len(codes) // threads)
    if threads == 1:
        return of_part(0)
    with ThreadPoolExecutor(threads - 1) as pool:  # this thread has its part too
        others = [pool.submit(of_part, start) for start in range(step, len(codes), step)]
        return np.concatenate([of_part(0), *(other.result() for other in others)])


def _bound(scores: NDArray[np.float32], rank: int) -> float:
    """A lower bound of the score of this rank: that of the highest of groups, each of which has another row."""
    groups = len(scores) // _GROUP
    if groups < _GROUP * rank:
        return _highest(scores, rank)
    return _highest(scores[: groups * _GROUP].reshape(_GROUP, groups).max(axis=0), rank)


def _highest(scores: NDArray[np.float32], rank: int) -> float:
    """The score of this rank, counted from 1."""
    return float(np.partition(scores, len(scores) - rank)[len(scores) - rank])


def _encoded(rows: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32], NDArray[np.float32]]:
    """Codes (N, D) int8, their scales (N,) float32 and the residuals (N,) float32."""
    scales = np.maximum(rows.max(axis=1), -rows.min(axis=1)) / _MAX_CODE
    scales[scales == 0] = 1
    codes = np.rint(rows / scales[:, np.newaxis])
    rest = rows - codes * scales[:, np.newaxis]
    return codes.astype(np.int8), scales, np.sqrt(np.einsum("nd,nd->n", rest, rest))
