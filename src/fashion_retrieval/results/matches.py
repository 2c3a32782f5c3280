"""The answer of a gallery: matches, best first."""

from __future__ import annotations

from fashion_retrieval.results.retrieval import Match


class Matches(list[Match]):
    """The matches of one search, best first: a list."""
