"""Several photos of an item as one entry, beside its first photo alone: how often a new view finds its item first.

python -m benchmarks.views
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from PIL import Image, ImageEnhance, ImageOps

from benchmarks import material
from benchmarks.__main__ import RESULTS, machine
from fashion_retrieval import FashionModel
from fashion_retrieval._utils.files import write_atomically

SEED = 0


def view(photo: Image.Image, random: np.random.Generator) -> Image.Image:
    """A photo as another one of the same item might be: cut to 50 to 85 % of each side, mirrored, brighter."""
    width, height = (round(side * random.uniform(0.5, 0.85)) for side in photo.size)
    left, top = random.integers(photo.width - width + 1), random.integers(photo.height - height + 1)
    part = photo.crop((int(left), int(top), int(left) + width, int(top) + height))
    mirrored = ImageOps.mirror(part) if random.random() < 0.5 else part
    return ImageEnhance.Brightness(mirrored).enhance(random.uniform(0.6, 1.4))


def measure(files: list[Path], model: FashionModel, views: int) -> dict[str, Any]:
    """Share of items that a view which is not in the gallery finds first, and among ten, by how many views are kept."""
    random = np.random.default_rng(SEED)
    photos = [Image.open(file).convert("RGB") for file in files]
    rows = model.encode(images=[view(photo, random) for photo in photos for _ in range(views + 1)])
    rows = rows.reshape(len(files), views + 1, -1)
    found: dict[str, Any] = {}
    for kept in range(1, views + 1):
        means = rows[:, :kept].mean(axis=1)
        scores = rows[:, -1] @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T
        ranks = (scores > np.diagonal(scores)[:, None]).sum(axis=1)
        found[str(kept)] = {f"recall_at_{k}": round(float((ranks < k).mean()), 4) for k in (1, 10)}
    return {"items": len(files), "recall_by_views": found}


def main(
    items: Annotated[int, typer.Option(min=2, help="How many products.")] = 200,
    views: Annotated[int, typer.Option(min=1, help="Views of each in the gallery.")] = 4,
    photos: Annotated[Path, typer.Option(help="A folder of photos.")] = material.PACK / "products",
    out: Annotated[Path, typer.Option(help="The JSON file.")] = RESULTS / "views.json",
) -> None:
    """Measure and write JSON."""
    files = sorted(photos.rglob("*.jpg"))
    chosen = files[:: max(1, len(files) // items)][:items]
    measured = {"machine": machine(), **measure(chosen, FashionModel.from_pretrained("compact"), views)}
    with write_atomically(out) as partial:
        partial.write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")
    typer.echo(f"written to {out}")


if __name__ == "__main__":
    typer.run(main)
