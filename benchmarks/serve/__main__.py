"""Measure one part of the section `serve`, and put it into its results file.

python -m benchmarks.serve throughput cold
python -m benchmarks.serve soak --requests 2000
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import serve
from benchmarks.__main__ import RESULTS, machine
from fashion_retrieval._utils.files import write_atomically


def main(
    parts: Annotated[list[str] | None, typer.Argument(help=f"Of {', '.join(serve.PARTS)}; all without one.")] = None,
    quick: Annotated[bool, typer.Option(help="A smoke run; its results mean nothing.")] = False,
    requests: Annotated[int | None, typer.Option(min=20, help="Of the soak; by default 20,000.")] = None,
    cache: Annotated[Path, typer.Option(help="Where photos and the gallery are made.")] = Path("runs/benchmarks"),
    out: Annotated[Path, typer.Option(help="The JSON file; other parts in it stay.")] = RESULTS / "serve.json",
) -> None:
    """Measure the service under load."""
    chosen = tuple(parts or serve.PARTS)
    if unknown := set(chosen) - set(serve.PARTS):
        raise typer.BadParameter(f"parts are {', '.join(serve.PARTS)}, got {', '.join(sorted(unknown))}")
    cache.mkdir(parents=True, exist_ok=True)
    for part in chosen:  # a part that is measured is kept, whatever becomes of the next
        found = json.loads(out.read_text(encoding="utf-8")) if out.is_file() else {}
        found |= {"machine": machine()} | serve.measure(cache, quick=quick, parts=(part,), requests=requests)
        with write_atomically(out) as partial:
            partial.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        typer.echo(f"{part}: written to {out}")


if __name__ == "__main__":
    typer.run(main)
