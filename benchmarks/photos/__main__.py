"""Measure one part of the section `photos`, and put it into its results file.

python -m benchmarks.photos memory
python -m benchmarks.photos colors --profiles FOLDER
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import photos
from benchmarks.__main__ import RESULTS, machine
from benchmarks.photos.profiles import FOLDER
from fashion_retrieval._utils.files import write_atomically


def main(
    parts: Annotated[list[str] | None, typer.Argument(help=f"Of {', '.join(photos.PARTS)}; all without one.")] = None,
    quick: Annotated[bool, typer.Option(help="A smoke run; its results mean nothing.")] = False,
    profiles: Annotated[Path, typer.Option(help="Folder with color profiles, looked through as a tree.")] = FOLDER,
    cache: Annotated[Path, typer.Option(help="Where photos are drawn.")] = Path("runs/benchmarks"),
    out: Annotated[Path, typer.Option(help="The JSON file; other parts in it stay.")] = RESULTS / "photos.json",
) -> None:
    """Measure what photos of every kind take, and what colors they get."""
    chosen = tuple(parts or photos.PARTS)
    if unknown := set(chosen) - set(photos.PARTS):
        raise typer.BadParameter(f"parts are {', '.join(photos.PARTS)}, got {', '.join(sorted(unknown))}")
    cache.mkdir(parents=True, exist_ok=True)
    for part in chosen:  # a part that is measured is kept, whatever becomes of the next
        found = json.loads(out.read_text(encoding="utf-8")) if out.is_file() else {}
        found |= {"machine": machine()} | photos.measure(cache, quick=quick, parts=(part,), folder=profiles)
        with write_atomically(out) as partial:
            partial.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    typer.echo(f"written to {out}")


if __name__ == "__main__":
    typer.run(main)
