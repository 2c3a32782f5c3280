"""How much memory a step of RaF-CLIP's recipe takes on a device, computed from small batches on the CPU.

python -m training.memory training/configs/raf_clip_vit_b_32.toml --check --out training/results/memory_vit_b_32.json

A run always holds weights, AdamW's two moments, averaged weights and a step's pictures. Beside them a step holds most
at one of two moments: at the end of the forward pass, when all is there that the backward pass needs (half-precision
copies of the weights among it), or late in the backward pass, when the gradients are. What is saved is measured tensor
by tensor on two small batches, at the real architecture and precision; a larger batch lies on the line through them.
Not counted: the driver's own memory, kernels' workspace and fragmentation.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from training.engine.errors import one_line_errors
from training.engine.files import write_whole
from training.engine.settings import read_settings
from training.memory_saved import Saved, on_line
from training.memory_step import Recipe, moments
from training.recipes.raf_clip_settings import Settings

CARD_GB = 24
"""Of the paper's card."""
SMALL, LARGER = (2, 4), (8, 16)
"""Pictures or texts that are measured, and those that the check predicts from them."""
_CHECKED = ((4, False, 0), (12, False, 0), (24, False, 0), (24, True, 0), (12, False, 8), (12, True, 8))
"""Steps that the check measures: garments, gradient checkpointing, micro-batch."""


def table(
    recipe: Recipe, towers: Sequence[Mapping[int, Saved]], garments: int, micro_batch: int
) -> list[dict[str, Any]]:
    """A row a variant of the recipe, in GB: what is always there, the two moments, the peak."""
    step = recipe.step(garments)
    rows = []
    for checkpointing, micro in ((False, 0), (True, 0), (False, micro_batch), (True, micro_batch)):
        of_step = moments(recipe, towers, step, checkpointing=checkpointing, micro_batch=micro)
        always = recipe.always(step)
        held = {**always, "end_of_forward": of_step.end_of_forward, "late_in_backward": of_step.late_in_backward}
        peak = sum(always.values()) + of_step.most
        in_gb = {name: round(size / 1e9, 3) for name, size in {**held, "peak": peak}.items()}
        rows.append(
            {"gradient_checkpointing": checkpointing, "micro_batch": micro, **in_gb, "fits": peak < CARD_GB * 1e9}
        )
    return rows


def checked(recipe: Recipe, towers: Sequence[Mapping[int, Saved]]) -> dict[str, Any]:
    """How far the computed figures lie from measured ones, as ratios: of what is saved, and of whole small steps."""
    saved = {
        name: {
            n: round(on_line(small, n).plain / measured.plain, 5) for n, measured in larger.items() if measured.plain
        }
        for name, small, larger in zip(("pictures", "texts"), towers, recipe.measured(LARGER), strict=True)
    }
    peaks = []
    for garments, checkpointing, micro in _CHECKED:
        step = recipe.step(garments)
        computed = moments(recipe, towers, step, checkpointing=checkpointing, micro_batch=micro).most
        measured = recipe.measured_peak(step, checkpointing=checkpointing, micro_batch=micro)
        variant = {"garments": garments, "gradient_checkpointing": checkpointing, "micro_batch": micro}
        in_gb = {"measured": round(measured / 1e9, 3), "computed": round(computed / 1e9, 3)}
        peaks.append({**variant, **in_gb, "ratio": round(computed / measured, 3)})
    return {"saved": saved, "steps": peaks}


def main(
    config: Path,
    architecture: Annotated[
        str, typer.Option(help="Of open_clip, where the recipe's start is not there.")
    ] = "ViT-B-32",
    micro_batch: Annotated[int, typer.Option(help="Of the rows with one.")] = 64,
    check: Annotated[bool, typer.Option("--check", help="Compare with measured small steps.")] = False,
    out: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
) -> None:
    """Print the table of a recipe, and write it where asked."""
    with one_line_errors():
        settings = read_settings(config, Settings)
        recipe = Recipe(settings, architecture)
        towers = recipe.measured(SMALL)
        garments = settings.whole_garments + settings.masked_garments + settings.extra_garments
        rows = table(recipe, towers, garments, settings.micro_batch or micro_batch)
        results = {
            "config": config.name,
            "encoder": recipe.start,
            "amp": settings.optimization.amp,
            "step": asdict(recipe.step(garments)),
            "card_gb": CARD_GB,
            "measured_batches": SMALL,
            "torch": torch.__version__,
            "machine": platform.machine(),
            "gb": rows,
        }
        if check:
            results["check"] = checked(recipe, towers)
        if out:
            write_whole(out, (json.dumps(results, indent=2) + "\n").encode())
        for row in [list(rows[0]), *(list(row.values()) for row in rows)]:
            typer.echo("| " + " | ".join(map(str, row)) + " |")
        if check:
            typer.echo(json.dumps(results["check"]))


if __name__ == "__main__":
    typer.run(main)
