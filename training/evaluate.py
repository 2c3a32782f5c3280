"""Measure models, and write their metrics: a JSON file, and a Markdown file beside it with the paper's metrics too.

python -m training.evaluate                                  # the embedded model, `val` of the data pack
python -m training.evaluate visibility                       # what a photo can't show
python -m training.evaluate recognition --deepfashion ROOT --model CLIP --model OURS        # Table 1
python -m training.evaluate retrieval --deepfashion ROOT --model CLIP --model OURS          # Table 2
python -m training.evaluate composed --fashioniq ROOT --protocol all --missing report       # Table 3
python -m training.evaluate composed                         # the pack's pairs and changes, also with wrong photos
python -m training.evaluate edits                            # one attribute replaced, as on Fashion200k
python -m training.evaluate edits --fashion200k ROOT
python -m training.evaluate wordings                         # six wordings of one wish
python -m training.evaluate recognition --deepfashion ROOT --view whole_photo --view masked_crop   # Table 4
python -m training.evaluate words                            # words as people type them
python -m training.evaluate few_shot                         # own labels against prompts
python -m training.evaluate negation                         # wishes that say what is not wanted
python -m training.evaluate ablation                         # Table 5, from training.compare_composers
python -m training.evaluate all --deepfashion ROOT --fashioniq ROOT
Without a root each command measures on the open data pack.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from fashion_retrieval import FashionModel
from fashion_retrieval._utils.deprecation import warn_renamed
from fashion_retrieval.errors import ConfigError
from fashion_retrieval.hub.download import EMBEDDED, resolve
from training.data.cuts import FOLDS
from training.data.edits import MOST, edits
from training.data.fashion200k import read_fashion200k
from training.data.fashioniq import Protocol
from training.data.pairs import Pairs
from training.data.triplets import GROUPS, CaptionMode, Missing
from training.data.typed_words import MADE, read_typed_words
from training.engine.errors import one_line_errors
from training.evaluation.compact import Part, measure, targets
from training.evaluation.composed import read_sets
from training.evaluation.deepfashion import View
from training.evaluation.few_shot import evaluate_few_shot
from training.evaluation.negation import evaluate_negation
from training.evaluation.queries import DRAWS
from training.evaluation.results_file import RESULTS, check_output, destination, provenance, write_results
from training.evaluation.typed_words import evaluate_typed_words
from training.evaluation.visibility import evaluate_visibility
from training.reports import sections
from training.reports.everything import Roots, measure_all
from training.reports.sections import Models, Section, load_models
from training.reports.tables import page

PACK = Path("../shared/data")
app = typer.Typer(help="Measure models and write their metrics.", add_completion=False, pretty_exceptions_enable=False)

ModelNames = Annotated[
    list[str] | None, typer.Option("--model", help="A model id or folder; more are compared with the first.")
]
Data = Annotated[Path, typer.Option(help="The open data pack.")]
DeepFashion = Annotated[Path | None, typer.Option(help="DeepFashion's folder, instead of the data pack.")]
Split = Annotated[str, typer.Option(help="A split of the data.")]
EitherSplit = Annotated[str | None, typer.Option(help="val of the data pack or test of DeepFashion unless given.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of intervals and tests.")]
_OUTPUT = "The JSON file; a Markdown file comes beside it."
Output = Annotated[Path | None, typer.Option(help=_OUTPUT)]
Comparison = Annotated[Path, typer.Option(help="The results file of training.compare_composers.")]
Draws = Annotated[int, typer.Option(min=0, help="Wrong photos that each query is asked with; 0 for none.")]
Handling = Annotated[Missing, typer.Option(help="Refuse missing photos, or go on and list them.")]


@app.command()
def parts(
    part: Annotated[Part, typer.Argument(help="What to measure.")] = Part.ALL,
    model: Annotated[str, typer.Option(help="A model id or folder.")] = EMBEDDED,
    data: Data = PACK,
    split: Split = "val",
    output: Output = None,
) -> None:
    """Recognition and segmentation of one model on the data pack, and its targets; "parts" may be left out."""
    path = output or RESULTS / f"{Path(model).name}_{split}{'' if part == Part.ALL else f'_{part}'}.json"
    with one_line_errors():
        check_output(path)
        results = measure(FashionModel.from_pretrained(model, dtype="float32"), data, split, part)
        if part == Part.ALL:
            for what, measured, wanted in targets(results, resolve(model)):
                typer.echo(f"{what:40} {measured:8.3f}   target {wanted:g}")
        write_results(results, path)


@app.command()
def visibility(
    model: Annotated[str, typer.Option(help="A model id or folder.")] = EMBEDDED,
    data: Data = PACK,
    split: Split = "val",
    fold: Annotated[int | None, typer.Option(min=0, max=FOLDS - 1, help="One part of the photos; all if none.")] = None,
    output: Output = None,
) -> None:
    """What a photo can't show, on cut garments; and the category of users' photos, without boxes."""
    more = [] if fold is None else [f"fold{fold}"]
    path = output or destination(RESULTS, "visibility", *more, models=[model], split=split)
    with one_line_errors():
        check_output(path)
        loaded = FashionModel.from_pretrained(model, dtype="float32")
        found = evaluate_visibility(loaded, data, split, fold)
        for name in ("not_visible_f1", "visible_precision", "visible_macro_f1"):
            typer.echo(f"{name.replace('_', ' '):40} {found[name]:8.3f}")
        write_results(provenance(loaded, model, {"root": str(data)}) | {"split": split, "fold": fold} | found, path)


@app.command()
def recognition(
    model: ModelNames = None,
    data: Data = PACK,
    deepfashion: DeepFashion = None,
    view: Annotated[list[View] | None, typer.Option(help="A view of DeepFashion's photos; may be repeated.")] = None,
    split: EitherSplit = None,
    seed: Seed = 0,
    output: Output = None,
) -> None:
    """Attributes of labeled garments (Tables 1 and 4)."""
    names, split = model or [EMBEDDED], split or ("test" if deepfashion else "val")
    more = ["deepfashion", *(view or [])] if deepfashion else []

    def section(models: Models) -> Section:
        if deepfashion is None:
            return sections.recognition_of_pack(models, data, split, seed=seed)
        views = view or [View.MASKED_CROP]
        return sections.recognition_of_deepfashion(models, deepfashion, split, views, seed=seed)

    path = output or destination(RESULTS, "recognition", *more, models=names, split=split)
    common = {"split": split, "seed": seed}
    _write("Attribute recognition", section, names, path, {"root": str(deepfashion or data)}, common)


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

    def section(models: Models) -> Section:
        if deepfashion is None:
            return sections.retrieval_of_pack(models, data, split, seed=seed)
        return sections.retrieval_of_deepfashion(models, deepfashion, split, seed=seed)

    more = "deepfashion" if deepfashion else ""
    path = output or destination(RESULTS, "retrieval", more, models=names, split=split)
    common = {"split": split, "seed": seed}
    _write("Image-text retrieval", section, names, path, {"root": str(deepfashion or data)}, common)


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
    pairs: Annotated[Pairs | None, typer.Option(help="Only these pairs of the pack; both unless given.")] = None,
    draws: Draws = DRAWS,
    seed: Seed = 0,
    output: Output = None,
) -> None:
    """A reference photo and a text against a gallery (Table 3), also with wrong photos and with parts of the query."""
    names, groups = model or [EMBEDDED], list(group or GROUPS)
    more = [(protocol or Protocol.ORIGINAL) if fashioniq else pairs or "", *(group or [])]
    more += [captions] if captions != CaptionMode.BOTH else []

    def section(models: Models) -> Section:
        sets = read_sets(data, fashioniq, protocol, split, groups, missing, pairs)
        return sections.composed_of(models, sets, captions, draws=draws, seed=seed)

    path = output or destination(RESULTS, "fashioniq" if fashioniq else "composed", *more, models=names, split=split)
    config = {"root": str(fashioniq or data), "groups": groups, "missing": str(missing), "draws": draws}
    source = "fashioniq" if fashioniq else "pairs"
    common = {"source": source, "caption_mode": str(captions), "split": split, "seed": seed}
    _write("Composed retrieval", section, names, path, config, common)


@app.command("few_shot")
def few_shot(
    model: Annotated[str, typer.Option(help="A model id or folder.")] = EMBEDDED,
    data: Data = PACK,
    split: Split = "val",
    shots: Annotated[int, typer.Option(min=2, help="Labeled photos a value.")] = 16,
    seeds: Annotated[int, typer.Option(min=1, help="Draws of labeled photos.")] = 8,
    output: Output = None,
) -> None:
    """Groups that no training had, from a few labeled photos of train: a probe (`fit_attribute`) against prompts."""
    path = output or destination(RESULTS, "few_shot", models=[model], split=split)
    with one_line_errors():
        check_output(path)
        loaded = FashionModel.from_pretrained(model, dtype="float32")
        results = evaluate_few_shot(loaded, data, split, shots=shots, seeds=seeds)
        for name, found in results["groups"].items():
            low, high = found["macro_f1_gain_interval"]
            figures = f"prompts {found['prompts']['macro_f1']:.3f}, probe {found['probe']['macro_f1']:.3f}"
            typer.echo(f"{name:14} macro-F1: {figures}, gain {found['macro_f1_gain']:+.3f} [{low:+.3f}, {high:+.3f}]")
        config = {"root": str(data), "shots": shots, "seeds": seeds}
        write_results(provenance(loaded, model, config) | results, path)


@app.command()
def ablation(
    results: Comparison = RESULTS / "compare_variants.json",
    runs: Annotated[Path | None, typer.Option(help="Folder of its runs; that of its recipe unless given.")] = None,
    seed: Seed = 0,
    output: Output = None,
) -> None:
    """The composer and its ablations, trained alike by training.compare_composers (Table 5)."""
    path = output or RESULTS / "ablation.json"
    with one_line_errors():
        check_output(path)
        section = sections.ablation_of(results, runs, seed=seed)
        section.show()
        (found,) = section.results.values()
        markdown = page("The composer and its ablations", *section.paragraphs)
        write_results(found | {"resampling": section.resampling}, path, markdown)


@app.command()
def words(
    model: Annotated[str, typer.Option(help="A model id or folder.")] = EMBEDDED,
    before: Annotated[str | None, typer.Option(help="A model whose embeddings of known texts should be kept.")] = None,
    trained: Annotated[
        Path | None, typer.Option(help="Folder of training.train_words that made its text tower.")
    ] = None,
    data: Data = PACK,
    output: Output = None,
) -> None:
    """What words mean as people type them (training/configs/typed_words.toml), and how near two spellings are."""
    path = output or RESULTS / f"typed_words{'' if model == EMBEDDED else '_' + Path(model).name}.json"
    with one_line_errors():
        check_output(path)
        loaded = {name: FashionModel.from_pretrained(name, dtype="float32") for name in (model, before) if name}
        made = frozenset((trained / MADE).read_text(encoding="utf-8").splitlines() if trained else ())
        found = evaluate_typed_words(
            loaded[model], read_typed_words(), made=made, before=loaded.get(before or ""), data=data
        )
        test = found["test"]
        typer.echo(f"category of the test half, top-1: {test['category']['top1']:.3f}")
        typer.echo(f"pairs of spellings of the test half, mean cosine: {test['pairs']['mean']:.3f}")
        write_results(provenance(loaded[model], model, {"before": before}) | found, path)


@app.command()
def negation(
    model: Annotated[str, typer.Option(help="A model id or folder.")] = EMBEDDED,
    data: Data = PACK,
    split: Split = "val",
    photos: Annotated[int | None, typer.Option(min=50, help="Draw so many labeled photos; all if none.")] = None,
    seed: Seed = 0,
    output: Output = None,
) -> None:
    """Wishes that say what is not wanted: the share of the top 10 that shows it, as text and read."""
    path = output or destination(RESULTS, "negation", models=[model], split=split)
    with one_line_errors():
        check_output(path)
        loaded = FashionModel.from_pretrained(model, dtype="float32")
        found = evaluate_negation(loaded, data, split, photos=photos, seed=seed)
        for way, measured in found["ways"].items():
            typer.echo(f"{way:24} shows it: {measured['share']:.3f}, same category: {measured['same_category']:.3f}")
        config = {"root": str(data), "photos": photos, "seed": seed}
        write_results(provenance(loaded, model, config) | {"split": split} | found, path)


@app.command("edits")
def edits_(
    model: ModelNames = None,
    data: Data = PACK,
    fashion200k: Annotated[Path | None, typer.Option(help="Fashion200k's folder, instead of the data pack.")] = None,
    split: Annotated[str | None, typer.Option(help="val, or train; Fashion200k has test alone.")] = None,
    most: Annotated[int, typer.Option(min=1, help="At most so many queries of each attribute of the pack.")] = MOST,
    draws: Draws = DRAWS,
    seed: Seed = 0,
    output: Output = None,
) -> None:
    """One attribute of a photo replaced by another, as on Fashion200k: recall and mean average precision."""
    names, split = model or [EMBEDDED], split or ("test" if fashion200k else "val")

    def section(models: Models) -> Section:
        read = edits(data, split, most=most, seed=seed) if fashion200k is None else read_fashion200k(fashion200k, split)
        return sections.edits_of(models, read, draws=draws, seed=seed)

    path = output or destination(RESULTS, "fashion200k" if fashion200k else "edits", models=names, split=split)
    config = {"root": str(fashion200k or data), "most": most, "draws": draws}
    _write("Edits of one attribute", section, names, path, config, {"split": split, "seed": seed})


@app.command()
def wordings(
    model: ModelNames = None,
    data: Data = PACK,
    split: Split = "val",
    most: Annotated[int, typer.Option(min=1, help="At most so many wishes of each attribute.")] = MOST,
    seed: Seed = 0,
    output: Output = None,
) -> None:
    """Six wordings of the same wishes: how much R@10 depends on the words."""
    names = model or [EMBEDDED]

    def section(models: Models) -> Section:
        return sections.wordings_of(models, edits(data, split, most=most, seed=seed), seed=seed)

    path = output or destination(RESULTS, "wordings", models=names, split=split)
    common = {"split": split, "seed": seed}
    _write("Wordings of one wish", section, names, path, {"root": str(data), "most": most}, common)


@app.command("all")
def everything(
    model: ModelNames = None,
    data: Annotated[Path | None, typer.Option(help="The open data pack; ../shared/data if it is there.")] = None,
    deepfashion: Annotated[Path | None, typer.Option(help="DeepFashion's folder.")] = None,
    fashioniq: Annotated[Path | None, typer.Option(help="FashionIQ's folder.")] = None,
    results: Comparison = RESULTS / "compare_variants.json",
    missing: Handling = Missing.ERROR,
    seed: Seed = 0,
    output: Annotated[Path, typer.Option(help=_OUTPUT)] = Path("results.json"),
) -> None:
    """All tables that the given roots allow, in one file; written after each, so that a fault in one loses no other."""
    with one_line_errors():
        check_output(output)
        models = load_models(model or [EMBEDDED])
        roots = Roots(data or (PACK if PACK.is_dir() else None), deepfashion, fashioniq, results)
        failed = measure_all(models, roots, output, missing=missing, seed=seed)
        if failed:
            raise ConfigError(f"not measured: {'; '.join(failed)}; the rest is in {output}")


def _write(
    title: str,
    section_of: Callable[[Models], Section],
    names: Sequence[str],
    path: Path,
    config: Mapping[str, Any],
    common: Mapping[str, Any],
) -> None:
    """Measure models and write the results: the first model's as they are, then others and how far they are ahead."""
    with one_line_errors():
        check_output(path)
        models = load_models(names)
        section = section_of(models)
        section.show()
        said = {**common, "resampling": section.resampling}
        first, *others = [provenance(m, name, config) | said | section.results[name] for name, m in models.items()]
        compared = {"others": others, "against_first": section.against_first} if section.against_first else {}
        write_results(first | compared, path, page(title, *section.paragraphs))


def run(arguments: Sequence[str]) -> None:
    """Run the command line; without the name of a command it is `parts`."""
    given = [*arguments]
    for place, word in enumerate(given):
        if word.removeprefix("--view=") == "as_recognised":
            warn_renamed("--view as_recognised", "as_recognized")
            given[place] = word.replace("as_recognised", View.AS_RECOGNIZED)
    measured = "parts visibility recognition retrieval composed words few_shot ablation negation edits wordings all"
    named = {*measured.split(), "--help"}
    app(given if named & {*given[:1]} else ["parts", *given])


if __name__ == "__main__":
    run(sys.argv[1:])
