"""A LanceDB table's rows in memory: read once, and from then on only what was written since."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fashion_retrieval.gallery.engines.scan import Scan
from fashion_retrieval.gallery.filters import Comparison, Condition

if TYPE_CHECKING:
    import pyarrow as pa
    from lancedb.table import Table

_ROW = "_rowid"
"""LanceDB's number of a row. None is given twice: rows that are written later, or moved, get higher ones."""
_VECTOR = "vector"


@dataclass(frozen=True, slots=True)
class Held:
    """The rows of a table at one version.

    Attributes:
        facts: All their columns but the vectors, and LanceDB's numbers of them.
        scan: Their vectors, in the same order; it may already hold those of later versions after them.
        there: (N,) bool, False for rows that were removed or replaced since they were read.
    """

    facts: pa.Table
    scan: Scan
    there: NDArray[np.bool_]

    @classmethod
    def of(cls, table: Table) -> Held:
        """All rows of a table, as it is at the version it is checked out at."""
        import pyarrow as pa

        columns = [field for field in table.schema if field.name != _VECTOR]
        facts = pa.schema([*columns, pa.field(_ROW, pa.uint64())]).empty_table()
        scan = Scan(table.schema.field(_VECTOR).type.list_size, table.count_rows())
        return cls(facts, scan, np.empty(0, np.bool_))._with(table, None)

    def following(self, table: Table) -> Held | None:
        """The rows of a later version, in the same memory; None where it is better read anew.

        Searches of this version may be under way.
        """
        if not len(self.facts):
            return None
        known, there = self.facts[_ROW].to_numpy(), self.there
        after = f"{_ROW} > {known.max()}"
        kept = table.count_rows() - table.count_rows(after)
        if np.count_nonzero(there) > kept:
            now: Any = table.search()
            there = np.isin(known, now.select([_ROW]).limit(table.count_rows()).to_arrow()[_ROW].to_numpy())
        if not len(there) / 2 <= np.count_nonzero(there) == kept:
            return None
        return replace(self, there=there)._with(table, after)

    def _with(self, table: Table, condition: str | None) -> Held:
        """These rows, and after them those of the table for which the condition is true."""
        import pyarrow as pa

        names, end, pieces = self.facts.schema.names, len(self.facts), [self.facts]
        query: Any = table.search()
        if condition:
            query = query.where(condition)
        for batch in query.select([*names, _VECTOR]).limit(max(table.count_rows(), 1)).to_batches():
            self.scan.put(end, batch[_VECTOR].flatten().to_numpy().reshape(len(batch), -1))
            pieces.append(pa.Table.from_batches([batch]).select(names))
            end += len(batch)
        there = np.concatenate([self.there, np.ones(end - len(self.facts), np.bool_)])
        return Held(pa.concat_tables(pieces).combine_chunks(), self.scan, there)

    def nearest(
        self, query: NDArray[np.float32], limit: int, where: Condition | None, columns: Mapping[str, str]
    ) -> tuple[pa.Table, NDArray[np.float32]]:
        """The nearest rows by cosine, and their vectors (M, D) float32; exact.

        Args:
            query: L2-normalized (D,) float32.
            limit: How many, at least 1.
            where: Which rows count.
            columns: The column by field.
        """
        import pyarrow as pa

        allowed = self.there if where is None else self.there & matching(where, self.facts, columns)
        numbers = self.scan.nearest(query, limit, allowed)
        chosen = pa.array(numbers)
        columns_ = [column.chunk(0) if column.num_chunks == 1 else column for column in self.facts.columns]
        facts = pa.table([column.take(chosen) for column in columns_], schema=self.facts.schema)
        return facts, self.scan.rows(numbers)


def matching(condition: Condition, table: pa.Table, columns: Mapping[str, str]) -> NDArray[np.bool_]:
    """(N,) bool, for which rows the condition is true."""
    if not isinstance(condition, Comparison):
        parts = (matching(part, table, columns) for part in condition.parts)
        return reduce(np.logical_and if condition.operator == "and" else np.logical_or, parts)
    found: NDArray[np.bool_] = _compared(condition, table[columns[condition.field]]).to_numpy()
    return found


def _compared(condition: Comparison, column: pa.ChunkedArray) -> pa.ChunkedArray:
    import pyarrow as pa
    import pyarrow.compute as pc

    values = pa.array(condition.values, column.type)
    plain: dict[str, Callable[[], pa.ChunkedArray]] = {
        "=": lambda: pc.equal(column, values[0]),
        "!=": lambda: pc.not_equal(column, values[0]),
        "<": lambda: pc.less(column, values[0]),
        "<=": lambda: pc.less_equal(column, values[0]),
        ">": lambda: pc.greater(column, values[0]),
        ">=": lambda: pc.greater_equal(column, values[0]),
        "like": lambda: pc.match_like(column, values[0].as_py()),
        "not like": lambda: pc.invert(pc.match_like(column, values[0].as_py())),
        "in": lambda: pc.is_in(column, values),
        "not in": lambda: pc.and_(pc.invert(pc.is_in(column, values)), pc.is_valid(column)),
        "null": lambda: pc.is_null(column),
        "not null": lambda: pc.is_valid(column),
    }
    return pc.fill_null(plain[condition.operator](), False)
