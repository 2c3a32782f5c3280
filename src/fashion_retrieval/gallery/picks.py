"""The results of a search, picked in the order of their rank: one of a group, one of near-duplicates."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from fashion_retrieval.gallery.duplicates import Looks
from fashion_retrieval.gallery.engines.base import Row, batched
from fashion_retrieval.gallery.filters import Scalar

_BLOCK = 256


class Picks:
    """Rows with their scores, best first.

    Args:
        group_by: A field; a row is left out if one with the same value was picked. Null is no value.
        exclude: Ids of rows that are left out.
        unique: Leave out near-duplicates of rows that were picked, and theirs.
    """

    def __init__(self, group_by: str | None, exclude: Collection[str], *, unique: bool) -> None:
        self.rows: list[tuple[float, Row]] = []
        self.groups: set[Scalar] = set()
        self._group_by, self._unique = group_by, unique
        self._seen = set(exclude)
        self._looks: list[Looks] = []  # of the rows and of their copies, where rows must be unique

    def take(self, ranked: Sequence[tuple[float, Row]], most: int) -> None:
        """Go through further rows, best first, until there are `most`; a row that was seen before is passed over."""
        for some in batched((pair for pair in ranked if pair[1].id not in self._seen), _BLOCK):
            copies = np.zeros((len(some), len(some)), np.bool_)
            hidden = copies[0].copy()
            if self._unique:
                looks = Looks.of([row for _, row in some])
                copies[looks.pairs(looks)] = True
                for earlier in self._looks:
                    hidden[looks.pairs(earlier)[0]] = True
            known: list[int] = []
            for place, (score, row) in enumerate(some):
                if len(self.rows) == most:
                    break
                self._seen.add(row.id)
                group = row.fields[self._group_by] if self._group_by else None
                if group in self.groups:  # a filter may leave it out, so it hides no copies
                    continue
                known.append(place)
                if hidden[place] or copies[place, known[:-1]].any():  # a copy of a copy is hidden as well
                    continue
                self.rows.append((score, row))
                if group is not None:
                    self.groups.add(group)
            if self._unique:
                self._looks.append(looks[np.array(known, np.intp)])
