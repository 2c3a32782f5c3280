"""Check a data set and make what its training needs beside it.

python -m training.prepare check|masks|captions|colors|fashioniq-images --help
"""

from __future__ import annotations

import json
import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from training.data.deepfashion_labels import PUBLISHED
from training.engine.errors import one_line_errors

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True)

Sam = Literal["vit_b", "vit_l", "vit_h"]
View = Literal["photo", "crop"]
Split = StrEnum("Split", {"TRAIN": "train", "VAL": "val", "TEST": "test"})

Root = Annotated[Path, typer.Argument(help="Folder with Anno_fine/ and img/.")]
Splits = Annotated[list[Split] | None, typer.Option("--split", help="Only this one; may come again.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps …")]


@app.command()
def check(
    root: Annotated[Path, typer.Argument(help="DeepFashion's or FashionIQ's folder; which, is seen.")],
    decode: Annotated[bool, typer.Option("--decode", help="Decode every photo, not only its header.")] = False,
    workers: Annotated[int, typer.Option(min=1, help="Processes to decode with.")] = os.cpu_count() or 1,
    as_json: Annotated[bool, typer.Option("--json", help="JSON with every name, instead of a table.")] = False,
) -> None:
    """Count, compare with the published sizes, list what is missing or wrong; exit status 1 if training would fail."""
    from training.prepare.check import check as look
    from training.prepare.report import print_report

    report = look(root, decode=decode, workers=workers)
    if as_json:
        typer.echo(json.dumps(report.to_dict(), indent=2))
    else:
        print_report(report, Console())
    if not report.good:
        raise typer.Exit(1)


@app.command()
def masks(
    root: Root,
    out: Annotated[Path | None, typer.Option(help="Folder for <item>/<photo>.png; ROOT/masks.")] = None,
    sam: Annotated[Sam, typer.Option(help="Size of Segment Anything.")] = "vit_h",
    weights: Annotated[Path | None, typer.Option(help="A file or folder instead of the Hub.")] = None,
    split: Splits = None,
    device: Device = "auto",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16, of the image encoder.")] = "float32",
) -> None:
    """Cut out every garment with SAM, prompted with its box; run again to go on. Also under torchrun."""
    from training.data.deepfashion import MASKS
    from training.engine.errors import report_failures
    from training.prepare.contact_sheet import draw_sheet
    from training.prepare.garments import read_garments
    from training.prepare.masks import load_segmenter, mask_settings, prepare_masks

    out = out or root / MASKS
    rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    garments = read_garments(root, split or tuple(PUBLISHED))
    segmenter = load_segmenter(sam, weights, device, dtype)
    settings = mask_settings(sam, weights, dtype)
    done = prepare_masks(garments, segmenter, out, settings, rank=rank, world_size=world_size)
    typer.echo(
        f"{done.made} masks made, {done.kept} were there, {len(done.failures)} failed; "
        f"mean estimated IoU {done.mean_iou:.3f}, {done.empty} boxes in which nothing was found"
    )
    sheet = draw_sheet(garments, out)  # by every process, so that the last one to end draws of all masks
    if sheet is not None and rank == 0:
        typer.echo(f"look at {sheet}")
    report_failures(done.failures)


@app.command()
def captions(
    root: Root,
    out: Annotated[Path | None, typer.Option(help="JSON-lines file; ROOT/captions.jsonl.")] = None,
    model: Annotated[str, typer.Option(help="BLIP: a folder or a Hub repository.")] = (
        "Salesforce/blip-image-captioning-base"
    ),
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of the Hub repository.")] = None,
    view: Annotated[View, typer.Option(help="What BLIP sees.")] = "photo",
    beams: Annotated[int, typer.Option(min=1, help="Width of the beam search.")] = 3,
    batch_size: Annotated[int, typer.Option(min=1, help="Photos at a time.")] = 32,
    split: Splits = None,
    device: Device = "auto",
) -> None:
    """Describe every photo with BLIP; run again to go on."""
    from training.engine.errors import report_failures
    from training.engine.files import LineFile
    from training.prepare.captions import Beam, Captioner, caption_settings, prepare_captions
    from training.prepare.garments import read_garments

    out, beam = out or root / "captions.jsonl", Beam(num_beams=beams)
    garments = read_garments(root, split or tuple(PUBLISHED))
    lines = LineFile(out, caption_settings(model, beam, view, revision))
    captioner = Captioner.from_pretrained(model, revision=revision, device=device, beam=beam)
    failures = prepare_captions(garments, captioner, lines, view=view, batch_size=batch_size)
    typer.echo(f"{len(lines.done)} captions in {out}")
    report_failures(failures)


@app.command()
def colors(
    root: Root,
    out: Annotated[Path | None, typer.Option(help="JSON-lines file; ROOT/colors.jsonl.")] = None,
    masks: Annotated[Path | None, typer.Option(help="Folder of `masks`; without, all of the box counts.")] = None,
    split: Splits = None,
) -> None:
    """Name every garment's color in the paper's nine; run again to go on."""
    from training.data.deepfashion import COLORS
    from training.engine.errors import report_failures
    from training.engine.files import LineFile
    from training.prepare.colors import color_settings, prepare_colors
    from training.prepare.garments import read_garments

    garments = read_garments(root, split or tuple(PUBLISHED))
    out = out or root / COLORS
    lines = LineFile(out, color_settings(masks))
    failures = prepare_colors(garments, lines, masks=masks)
    typer.echo(f"{len(lines.done)} colors in {out}")
    report_failures(failures)


@app.command()
def fashioniq_images(
    lists: Annotated[list[Path], typer.Argument(help="Published files with `ASIN <tab> URL` lines.")],
    out: Annotated[Path, typer.Option(help="FashionIQ's images/.")],
    rate: Annotated[float, typer.Option(min=0.01, help="Requests a second, at most.")] = 5.0,
    retries: Annotated[int, typer.Option(min=0, help="Repeats after a failure that may pass.")] = 4,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for the server.")] = 20.0,
    report: Annotated[Path | None, typer.Option(help="Dead links, .json or .csv; OUT/dead_links.json.")] = None,
) -> None:
    """Fetch FashionIQ's photos, one request at a time; run again to go on. Dead links are listed, not failed on."""
    from training.prepare.images import RetryPolicy, fetch_images, read_urls

    where = report or out / "dead_links.json"
    policy = RetryPolicy(rate=rate, retries=retries, timeout=timeout)
    done = fetch_images(read_urls(lists), out, policy, where)
    typer.echo(f"{done.written} photos fetched, {done.kept} were there, {len(done.failed)} dead links in {where}")


def main() -> None:
    """Run the command; expected errors are one line."""
    with one_line_errors():
        app()


if __name__ == "__main__":
    main()
