"""Pages from templates: Markdown whose figures come from results files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from fashion_retrieval._utils.files import write_atomically
from training.evaluation.results_file import words

ROOT = Path(__file__).parents[2]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def percent(value: float, digits: int = 2) -> str:
    """A fraction in percent, without the sign."""
    return f"{100 * value:.{digits}f}"


def interval(bounds: Sequence[float], scale: float = 1, digits: int = 3, sign: str = "") -> str:
    """Both ends of an interval."""
    return " to ".join(f"{scale * bound:{sign}.{digits}f}" for bound in bounds)


def render(template: str, **values: Any) -> str:  # noqa: ANN401  # whatever the template reads
    """Fill a file of `templates/`; a name that it reads and does not get is an error."""
    return _environment().get_template(template).render(**values).rstrip("\n")


def fill(page: Path, name: str, text: str) -> None:
    """Replace what stands between the marks `<!-- name -->` and `<!-- /name -->` of a page."""
    marks = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    content = marks.sub(lambda mark: f"{mark[1]}\n{text}\n\n{mark[2]}", page.read_text(encoding="utf-8"))
    with write_atomically(page) as partial:
        partial.write_text(content, encoding="utf-8")


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    environment.filters["interval"] = interval
    environment.filters["words"] = words
    return environment
