"""Measure models and write their figures: a JSON file, and a Markdown file beside it with the paper's.

python -m training.evaluate                                  # the embedded model's own figures, `val` of the data pack
python -m training.evaluate recognition --deepfashion ROOT --model CLIP --model OURS        # Table 1
python -m training.evaluate retrieval --deepfashion ROOT --model CLIP --model OURS          # Table 2
python -m training.evaluate composed --fashioniq ROOT --protocol all --missing report       # Table 3
python -m training.evaluate recognition --deepfashion ROOT --view whole_photo --view masked_crop   # Table 4
python -m training.evaluate ablation                         # Table 5, from training.compare_composers
python -m training.evaluate all --deepfashion ROOT --fashioniq ROOT
Without a root each command measures on the open data pack.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import typer

from fashion_retrieval import FashionModel
from fashion_retrieval.errors import ConfigError
from fashion_retrieval.hub.download import EMBEDDED, resolve
from training.data.fashioniq import Protocol
from training.data.triplets import GROUPS, CaptionMode, Missing
from training.engine.errors import one_line_errors
from training.evaluation.compact import Part, bars, measure
from training.evaluation.composed import read_sets, remarks
from training.evaluation.deepfashion import View
from training.evaluation.results_file import RESULTS, check_output, destination, provenance, write_figures
from training.reports import everything as all_tables
from training.reports.recognition_sections import (
    Models,
    Section,
    load_models,
    recognition_of_deepfashion,
    recognition_of_pack,
)
from training.reports.retrieval_sections import ablation_of, composed_of, retrieval_of_deepfashion, retrieval_of_pack
from training.reports.tables import page

PACK = Path("../shared/data")
app = typer.Typer(help="Measure models and write their figures.", add_completion=False, pretty_exceptions_enable=False)

ModelNames = Annotated[
    list[str] | None, typer.Option("--model", help="A model id or folder; more are compared with the first.")
]
Data = Annotated[Path, typer.Option(help="The open data pack.")]
DeepFashion = Annotated[Path | None, typer.Option(help="DeepFashion's folder, instead of the data pack.")]
Split = Annotated[str, typer.Option(help="A split of it.")]
EitherSplit = Annotated[str | None, typer.Option(help="val of the data pack or test of DeepFashion unless given.")]
Seed = Annotated[int, typer.Option(help="Of intervals and tests.")]
Output = Annotated[Path | None, typer.Option(help="The JSON file; a Markdown file comes beside it.")]
Handling = Annotated[Missing, typer.Option(help="Refuse missing photos, or go on and list them.")]


@app.command()
def parts(
    part: Annotated[Part, typer.Argument(help="What to measure.")] = Part.ALL,
    model: Annotated[str, typer.Option(help="A model id or folder.")] = EMBEDDED,
    data: Data = PACK,
    split: Split = "val",
    output: Output = None,
) -> None:
    """One model's recognition and segmentation of the data pack, against the bars; "parts" may be left out."""
    path = output or RESULTS / f"{Path(model).name}_{split}{'' if part == Part.ALL else f'_{part}'}.json"
    with one_line_errors():
        check_output(path)
        figures = measure(FashionModel.from_pretrained(model, dtype="float32"), data, split, part)
        if part == Part.ALL:
            for what, measured, wanted in bars(figures, resolve(model)):
                typer.echo(f"{what:40} {measured:8.3f}   bar {wanted:g}")
        write_figures(figures, path)


@app.command()
def recognition(
    model: ModelNames = None,
    data: Data = PACK,
    deepfashion: DeepFashion = None,
    view: Annotated[list[View] | None, typer.Option(help="Of DeepFashion's photos; may come again.")] = None,
    split: EitherSplit = None,
    seed: Seed = 0,
    output: Output = None,
) -> None:
    """Attributes of labeled garments (Tables 1 and 4)."""
    names, split = model or [EMBEDDED], split or ("test" if deepfashion else "val")
    more = ["deepfashion", *(view or [])] if deepfashion else []
    usual = destination(RESULTS, "recognition", *more, models=names, split=split)
    with _measuring(names, output or usual) as (models, path):
        if deepfashion is None:
            section = recognition_of_pack(models, data, split, seed=seed)
        else:
            section = recognition_of_deepfashion(models, deepfashion, split, view or [View.MASKED_CROP], seed=seed)
        _finish(section, models, path, "Attribute recognition", split, seed, {"root": str(deepfashion or data)})


@app.command()
def retrieval(
    model: ModelNames = None,
    data: Data = PACK,
    deepfashion: DeepFashion = None,
    split: EitherSplit = None,
    seed: Seed = 0,
    output: Output = None,
) -> None:
    """Texts against photos, and photos against texts: product names, or DeepFashion's captions by BLIP (Table 2)."""
    names, split = model or [EMBEDDED], split or ("test" if deepfashion else "val")
    usual = destination(RESULTS, "retrieval", "deepfashion" if deepfashion else "", models=names, split=split)
    with _measuring(names, output or usual) as (models, path):
        if deepfashion is None:
            section = retrieval_of_pack(models, data, split, seed=seed)
        else:
            section = retrieval_of_deepfashion(models, deepfashion, split, seed=seed)
        _finish(section, models, path, "Image-text retrieval", split, seed, {"root": str(deepfashion or data)})


@app.command()
def composed(
    model: ModelNames = None,
    data: Data = PACK,
    fashioniq: Annotated[Path | None, typer.Option(help="FashionIQ's folder, instead of the data pack.")] = None,
    protocol: Annotated[str | None, typer.Option(help="FashionIQ's: original, original_noref, val_split, all.")] = None,
    split: Split = "val",
    group: Annotated[list[str] | None, typer.Option(help="dress, shirt or toptee; all unless given.")] = None,
    captions: Annotated[CaptionMode, typer.Option(help="How two captions become one text.")] = CaptionMode.BOTH,
    missing: Handling = Missing.ERROR,
    seed: Seed = 0,
    output: Output = None,
) -> None:
    """A reference photo and a text against a gallery (Table 3)."""
    names, groups = model or [EMBEDDED], list(group or GROUPS)
    more = [(protocol or Protocol.ORIGINAL) if fashioniq else "", *(group or [])]
    more += [captions] if captions != CaptionMode.BOTH else []
    usual = destination(RESULTS, "fashioniq" if fashioniq else "composed", *more, models=names, split=split)
    with _measuring(names, output or usual) as (models, path):
        sets = read_sets(data, fashioniq, protocol, split, groups, missing)
        for line in remarks(sets):
            typer.echo(line, err=True)
        section = composed_of(models, sets, captions, seed=seed)
        config = {"root": str(fashioniq or data), "groups": groups, "missing": str(missing)}
        told = {"source": sets[0].source, "caption_mode": str(captions)}
        _finish(section, models, path, "Composed retrieval", split, seed, config, told)


@app.command()
def ablation(
    results: Annotated[Path, typer.Option(help="Of training.compare_composers.")] = RESULTS / "compare_variants.json",
    runs: Annotated[Path | None, typer.Option(help="Folder of its runs; that of its recipe unless given.")] = None,
    seed: Seed = 0,
    output: Output = None,
) -> None:
    """The composer and its ablations, trained alike by training.compare_composers (Table 5)."""
    path = output or RESULTS / "ablation.json"
    with one_line_errors():
        check_output(path)
        section = ablation_of(results, runs, seed=seed)
        for line in section.lines:
            typer.echo(line)
        (figures,) = section.figures.values()
        write_figures(
            figures | {"resampling": section.resampling},
            path,
            page("The composer and its ablations", *section.paragraphs),
        )


@app.command("all")
def everything(
    model: ModelNames = None,
    data: Annotated[Path | None, typer.Option(help="The open data pack; ../shared/data if it is there.")] = None,
    deepfashion: Annotated[Path | None, typer.Option(help="DeepFashion's folder.")] = None,
    fashioniq: Annotated[Path | None, typer.Option(help="FashionIQ's folder.")] = None,
    results: Annotated[Path, typer.Option(help="Of training.compare_composers.")] = RESULTS / "compare_variants.json",
    missing: Handling = Missing.ERROR,
    seed: Seed = 0,
    output: Annotated[Path, typer.Option(help="The JSON file; a Markdown file comes beside it.")] = Path(
        "results.json"
    ),
) -> None:
    """All tables that the given roots allow, in one file; written after each, so that a fault in one loses no other."""
    with _measuring(model or [EMBEDDED], output) as (models, path):
        roots = all_tables.Roots(data or (PACK if PACK.is_dir() else None), deepfashion, fashioniq, results)
        failed = all_tables.measure_all(models, roots, path, missing=missing, seed=seed)
        if failed:
            raise ConfigError(f"not measured: {'; '.join(failed)}; the rest is in {path}")


@contextmanager
def _measuring(names: Sequence[str], path: Path) -> Iterator[tuple[Models, Path]]:
    """The models, once the place for the results is known to be good; what is wrong in one line."""
    with one_line_errors():
        check_output(path)
        yield load_models(names), path


def _finish(
    section: Section,
    models: Models,
    path: Path,
    title: str,
    split: str,
    seed: int,
    config: Mapping[str, Any],
    told: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Say the figures and write them: those of the first model as they are, then others and how far they are ahead."""
    for line in section.lines:
        typer.echo(line)
    common = {**told, "split": split, "seed": seed, "resampling": section.resampling}
    first, *others = [provenance(m, name, config) | common | section.figures[name] for name, m in models.items()]
    more = {"others": others, "against_first": section.against_first} if section.against_first else {}
    write_figures(first | more, path, page(title, *section.paragraphs))


def run(arguments: Sequence[str]) -> None:
    """The command line; without the name of a command it is `parts`."""
    named = {"parts", "recognition", "retrieval", "composed", "ablation", "all", "--help"}
    app([*arguments] if named & {*arguments[:1]} else ["parts", *arguments])


if __name__ == "__main__":
    run(sys.argv[1:])
