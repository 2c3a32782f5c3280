"""The report of `prepare check`, as a table and as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from training.prepare.photos import Looked, State

_SHOWN, _LONGEST = 5, 400
BAD: tuple[State, ...] = ("missing", "zero_byte", "corrupt")


@dataclass(frozen=True, slots=True)
class Count:
    """How many of something exist, and how many were published; None if unknown."""

    what: str
    found: int
    published: int | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """State of a data set on disk."""

    dataset: str  # "deepfashion" or "fashioniq"
    root: str
    counts: list[Count]  # sizes against the published ones; smaller is no fault
    notes: dict[str, int]  # numbers worth knowing that stop nothing
    faults: list[str]  # faults that make training fail, beside bad photos
    looked: str  # "headers" or "pixels"
    photos: int = 0  # number of good ones
    bad_photos: dict[str, list[str]] = field(default_factory=dict)  # paths by fault

    @property
    def good(self) -> bool:
        """Whether training can start."""
        return not self.faults and not any(self.bad_photos.values())

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "good": self.good}


def sort_photos(paths: dict[str, Path], looks: list[Looked]) -> tuple[int, dict[str, list[str]]]:
    """Number of good photos, and the names of the others by what is wrong with them."""
    bad: dict[str, list[str]] = {state: [] for state in BAD}
    for name, looked in zip(paths, looks, strict=True):
        if looked.state != "good":
            bad[looked.state].append(name)
    return sum(looked.state == "good" for looked in looks), bad


def print_report(report: Report, console: Console) -> None:
    """Print counts, photos, notes and faults."""
    table = Table(title=Text(f"{report.dataset} in {report.root}"), title_justify="left", highlight=False)
    for heading in ("", "found", "published"):
        table.add_column(heading, justify="right" if heading else "left")
    for count in report.counts:
        published = "" if count.published is None else f"{count.published:,}"
        style = "" if count.published in (None, count.found) else "yellow"
        table.add_row(count.what, Text(f"{count.found:,}", style=style), published)
    table.add_section()
    table.add_row(f"photos with good {report.looked}", f"{report.photos:,}", "")
    for state, names in report.bad_photos.items():
        table.add_row(f"photos {state.replace('_', ' ')}", Text(f"{len(names):,}", style="red" if names else ""), "")
    table.add_section()
    for note, number in report.notes.items():
        table.add_row(note, f"{number:,}", "")
    console.print(table)
    for state, names in report.bad_photos.items():
        head = f"photo {state.replace('_', ' ')}: "
        more = [f"and {len(names) - _SHOWN} more (--json names all)"] if len(names) > _SHOWN else []
        for line in names[:_SHOWN] + more:
            console.print(Text(head + line, style="red"), soft_wrap=True)
    for fault in report.faults:
        text = fault if len(fault) <= _LONGEST else f"{fault[:_LONGEST]}… (--json shows all)"
        console.print(Text(f"fault: {text}", style="red"), soft_wrap=True)
    verdict = "nothing stops a training" if report.good else "a training would fail on this"
    console.print(Text(verdict, style="green" if report.good else "red"))
