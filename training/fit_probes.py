"""Fit what a photo can't show: probes on the frozen encoder of what sleeves, hem, neckline and category it hides.

python -m training.fit_probes training/configs/probes_compact.toml

Labeled garments of `train`, whole and cut (docs/models/compact.md), are embedded once; a later fit, say after another
text tower, takes a minute. The output is the model with its probes: embeddings are what they were, and the values in
view keep the odds that the prompts give them against each other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from pydantic import with_config
from torch import Tensor
from torch.nn import functional

from fashion_retrieval import FashionModel
from fashion_retrieval._utils.scores import expected_calibration_error
from fashion_retrieval.checkpoint.folder import load
from fashion_retrieval.config import ProbeConfig
from fashion_retrieval.errors import ConfigError
from fashion_retrieval.hub.download import resolve
from fashion_retrieval.models.probe import TINY, Floats, Probe
from fashion_retrieval.models.zero_shot import attribute_view
from training.data.cuts import FOLDS, OUT_OF_VIEW, fold_of
from training.data.views import NOTHING, PHOTO, Views, load_views
from training.engine.errors import one_line_errors
from training.engine.settings import SCHEMA, Positive, PositiveFraction, read_settings
from training.evaluation.visibility import HIDDEN, f1, label_of

TOLD = "told"
"""The one value of the probe of "category"."""
_ROUNDS = 100


@with_config(SCHEMA)
@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One TOML file.

    Attributes:
        model: Name or folder of the model that gets the probes.
        data: The open data pack.
        output: Folder for the model with its probes.
        cache: Folder for the embeddings, which only depend on the image tower.
        strength: Of the pull towards the prompts, as in `models.probe_fit`.
        lost: The part of whole garments, in folds of `train`, that may be called "not visible".
    """

    model: str
    data: str
    output: str
    cache: str
    strength: Positive
    lost: PositiveFraction


def fit_value(views: Floats, odds: Floats, hidden: NDArray[np.bool_], value: str, strength: float) -> Probe:
    """A probe of one value: logistic regression beside the log-odds (n,) that the prompts give it.

    Args:
        views: (n, d), L2-normalized.
        odds: (n,) of the value against all others.
        hidden: (n,), whether the value is right.
        value: Its name.
        strength: See `_least`.
    """
    prior, truth = torch.from_numpy(odds).double(), torch.from_numpy(hidden).double()
    return _least(views, value, strength, lambda rows: functional.binary_cross_entropy_with_logits(prior + rows, truth))


def fit_told(crops: Floats, sure: Floats, right: NDArray[np.bool_], whole: NDArray[np.bool_], strength: float) -> Probe:
    """A probe of how much of the likeliest category's probability is left, so that it is a frequency.

    Whole garments, (n,) bool, and all else count as one half each.

    Args:
        crops: (n, d), L2-normalized.
        sure: (n,), the probability of the likeliest category by the prompts.
        right: (n,), whether it is the garment's.
        whole: (n,), whether all of a garment is there.
        strength: See `_least`.
    """
    given, truth = torch.from_numpy(sure).double().clamp(max=1 - TINY), torch.from_numpy(right).double()
    share = torch.from_numpy(np.where(whole, 0.5 / whole.sum(), 0.5 / (~whole).sum()))

    def loss(rows: Tensor) -> Tensor:
        return functional.binary_cross_entropy(given * rows.sigmoid(), truth, share, reduction="sum")

    return _least(crops, TOLD, strength, loss)


def _least(views: Floats, value: str, strength: float, of: Callable[[Tensor], Tensor]) -> Probe:
    """The probe of one value for whose logits, (n,), `of` plus strength / 2 * |weight|² is least.

    Weights are those of embeddings that are centered and of a mean square norm of 1. Nothing in it is random.
    """
    rows = torch.from_numpy(views).double()
    center = rows.mean(0)
    spread = (rows - center).square().sum(1).mean().sqrt().clamp_min(TINY)
    features = (rows - center) / spread
    weight, bias = (rows.new_zeros(size, requires_grad=True) for size in (rows.shape[1], 1))
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=_ROUNDS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        found = of(features @ weight + bias) + strength / 2 * weight.square().sum()
        found.backward()  # type: ignore[no-untyped-call]  # torch's own
        return found

    optimizer.step(loss)  # type: ignore[no-untyped-call]  # torch's own
    weight = weight.detach() / spread
    bias = bias.detach() - weight @ center
    return Probe((value,), weight.float().numpy()[None], bias.float().numpy(), np.ones((), np.float32))


@dataclass(frozen=True, slots=True)
class Examples:
    """Views that hide or show what a group asks for.

    Attributes:
        views: (n, d), L2-normalized.
        odds: (n,), log-odds of the value for "not visible" by the prompts.
        rival: (n,), log-odds at which that value is likelier than any other.
        hidden: (n,), whether it is right.
        whole: (n,), whether all of the garment is there.
        folds: (n,), the part of the photos that each belongs to.
    """

    views: Floats
    odds: Floats
    rival: Floats
    hidden: NDArray[np.bool_]
    whole: NDArray[np.bool_]
    folds: NDArray[np.int64]


def examples(model: FashionModel, views: Views, name: str) -> Examples:
    """The views that count for a group, as `training.evaluate visibility` counts them."""
    recognizer = model.recognizer("default", 1)
    group = next(group for group in recognizer.taxonomy.attributes if group.name == name)
    categories = {value.name: value for value in recognizer.taxonomy.category.values}
    cuts = ["whole" if cut == PHOTO else cut for cut in views.cuts.tolist() if cut != NOTHING]
    labels = [label_of(*view, group, categories) for view in zip(views.samples, cuts, strict=False)]  # garments first
    known = [place for place, label in enumerate(labels) if label is not None]
    found = [recognizer.category_probabilities(views.crop[place], str(views.colors[place])) for place in known]
    rows = attribute_view(views.crop[known], views.masked[known])
    given = np.maximum(recognizer.by_prompts(rows, np.stack(found), group), np.float32(TINY))
    column = [value.name for value in group.values].index(OUT_OF_VIEW[name])
    others = np.delete(given, column, axis=1)
    return Examples(
        views=rows,
        odds=np.log(given[:, column] / others.sum(1)),
        rival=np.log(others.max(1) / others.sum(1)),
        hidden=np.array([labels[place] == HIDDEN for place in known]),
        whole=np.array([cuts[place] == "whole" for place in known]),
        folds=np.array([fold_of(views.samples[place].photo) for place in known]),
    )


def unseen(given: Examples, value: str, strength: float) -> Floats:
    """Log-odds of the value, (n,), for each view by a probe that was fitted without its photo."""
    found = np.empty_like(given.odds)
    for fold in range(FOLDS):
        chosen = given.folds != fold
        probe = fit_value(given.views[chosen], given.odds[chosen], given.hidden[chosen], value, strength)
        found[~chosen] = given.odds[~chosen] + given.views[~chosen] @ probe.weight[0] + probe.bias[0]
    return found


def fit_category(model: FashionModel, views: Views, strength: float) -> Probe:
    """A probe of "category", fitted on all garments of a known one and on parts of photos without a garment."""
    recognizer = model.recognizer("default", 1)
    names = [value.name for value in recognizer.taxonomy.category.values]
    truth = [None if cut == NOTHING else sample.category for sample, cut in zip(views.samples, views.cuts, strict=True)]
    kept = np.array([cut == NOTHING or name in names for name, cut in zip(truth, views.cuts, strict=True)])
    rows = zip(views.crop, views.colors.tolist(), strict=True)
    found = np.stack([recognizer.category_probabilities(*row) for row in rows])[kept]
    right = np.array([names[best] for best in found.argmax(1)]) == np.array(truth)[kept]
    crops, sure, whole = views.crop[kept], found.max(1), np.isin(views.cuts[kept], ["whole", PHOTO])
    folds, left = np.array([fold_of(sample.photo) for sample in views.samples])[kept], np.empty_like(sure)
    for fold in range(FOLDS):
        chosen = folds != fold
        probe = fit_told(crops[chosen], sure[chosen], right[chosen], whole[chosen], strength)
        left[~chosen] = [one * probe.chance(crop)[0] for one, crop in zip(sure[~chosen], crops[~chosen], strict=True)]
    errors = [expected_calibration_error(said[~whole].astype(np.float64), right[~whole]) for said in (sure, left)]
    typer.echo(
        f"category  calibration error of parts {errors[0]:.3f}, with a probe that did not see them {errors[1]:.3f}"
    )
    return fit_told(crops, sure, right, whole, strength)


def cautious(given: Examples, odds: Floats, lost: float) -> float:
    """The least that log-odds (n,) must be lowered by, so that of whole garments at most a part are called hidden."""
    excess = (odds - given.rival)[given.whole & ~given.hidden]
    return max(0.0, float(np.quantile(excess, 1 - lost, method="higher")))


@one_line_errors()
def main(config: Annotated[Path, typer.Argument(help="A TOML file of training/configs/probes_*.toml.")]) -> None:
    """Fit on `train`, tell what folds of it say, and write the model with its probes."""
    settings = read_settings(config, Settings)
    bundle = load(resolve(settings.model))
    if bundle.config is None:
        raise ConfigError(f"{settings.model} has no configuration; export it with python -m training.export model")
    plain = replace(bundle, extras=replace(bundle.extras, probes={}), config=replace(bundle.config, probes={}))
    model = FashionModel(plain, model_id=settings.model, device="cpu", dtype="float32")
    views = load_views(model, Path(settings.data), "train", Path(settings.cache))
    probes = {}
    for name, value in OUT_OF_VIEW.items():
        given = examples(model, views, name)
        odds = unseen(given, value, settings.strength)
        margin = cautious(given, odds, settings.lost)
        said = odds - margin > given.rival
        telling = f"F1 {f1(given.hidden, said):.3f} on photos of train that the probe did not see, margin {margin:.2f}"
        typer.echo(f"{name:9} {given.hidden.sum()} hidden, {(~given.hidden).sum()} shown; {telling}")
        probe = fit_value(given.views, given.odds, given.hidden, value, settings.strength)
        probes[name] = replace(probe, bias=probe.bias - np.float32(margin))
    probes["category"] = fit_category(model, views, settings.strength)
    about = {name: ProbeConfig(values=probe.values, encoder=model.fingerprint) for name, probe in probes.items()}
    config_of = replace(bundle.config, probes={**bundle.config.probes, **about})
    ready = replace(bundle, extras=replace(bundle.extras, probes={**bundle.extras.probes, **probes}), config=config_of)
    FashionModel(ready, model_id=settings.model, device="cpu", dtype="float32").save_pretrained(Path(settings.output))
    typer.echo(f"{', '.join(probes)} fitted into {settings.output}")


if __name__ == "__main__":
    typer.run(main)
