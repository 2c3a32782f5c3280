"""Fit what a photo can't show: for sleeve, length and neckline a probe of "not visible" on the frozen encoder.

python -m training.fit_probes training/configs/probes_compact.toml

Labeled garments of `train`, whole and cut (docs/models/compact.md), are embedded once; a later fit, say after another
text tower, takes a minute. The output is the model with its probes: embeddings are what they were, and the values in
view keep the odds that the prompts give them against each other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from pydantic import with_config
from torch.nn import functional

from fashion_retrieval import FashionModel
from fashion_retrieval.checkpoint.folder import load
from fashion_retrieval.config import ProbeConfig
from fashion_retrieval.errors import ConfigError
from fashion_retrieval.hub.download import resolve
from fashion_retrieval.models.probe import TINY, Floats, Probe
from fashion_retrieval.models.zero_shot import attribute_view
from training.data.cuts import FOLDS, OUT_OF_VIEW, fold_of
from training.data.views import PHOTO, Views, load_views
from training.engine.errors import one_line_errors
from training.engine.settings import SCHEMA, Positive, PositiveFraction, read_settings
from training.evaluation.visibility import HIDDEN, f1, label_of

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

    The mean cross-entropy plus strength / 2 * |weight|² is least, for embeddings that are centered and of a mean square
    norm of 1. Nothing in it is random.

    Args:
        views: (n, d), L2-normalized.
        odds: (n,) of the value against all others.
        hidden: (n,), whether the value is right.
        value: Its name.
        strength: The stronger, the nearer to the prompts with another threshold.
    """
    rows, prior, truth = (torch.from_numpy(np.asarray(array)).double() for array in (views, odds, hidden))
    center = rows.mean(0)
    spread = (rows - center).square().sum(1).mean().sqrt().clamp_min(TINY)
    features = (rows - center) / spread
    weight = rows.new_zeros(rows.shape[1], requires_grad=True)
    bias = rows.new_zeros((), requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=_ROUNDS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        entropy = functional.binary_cross_entropy_with_logits(prior + features @ weight + bias, truth)
        value = entropy + strength / 2 * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]  # torch's own
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]  # torch's own
    weight = weight.detach() / spread
    bias = bias.detach() - weight @ center
    return Probe((value,), weight.float().numpy()[None], bias.float().numpy()[None], np.ones((), np.float32))


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
    cuts = ["whole" if cut == PHOTO else cut for cut in views.cuts.tolist()]
    labels = [label_of(*view, group, categories) for view in zip(views.samples, cuts, strict=True)]
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


def cautious(given: Examples, odds: Floats, lost: float) -> float:
    """The least that log-odds (n,) must be lowered by, so that of whole garments at most a part are called hidden."""
    excess = (odds - given.rival)[given.whole & ~given.hidden]
    return max(0.0, float(np.quantile(excess, 1 - lost, method="higher")))


@one_line_errors()
def main(config: Annotated[Path, typer.Argument(help="A TOML file of training/configs/probes_*.toml.")]) -> None:
    """Fit on `train`, tell what folds of it say, and write the model with its probes."""
    settings = read_settings(config, Settings)
    model = FashionModel.from_pretrained(settings.model, device="cpu", dtype="float32", backend="torch")
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
    bundle = load(resolve(settings.model))
    if bundle.config is None:
        raise ConfigError(f"{settings.model} has no configuration; export it with python -m training.export model")
    about = {name: ProbeConfig(values=probe.values, encoder=model.fingerprint) for name, probe in probes.items()}
    extras = replace(bundle.extras, probes={**bundle.extras.probes, **probes})
    config_of = replace(bundle.config, probes={**bundle.config.probes, **about})
    ready = replace(bundle, extras=extras, config=config_of)
    FashionModel(ready, model_id=settings.model, device="cpu", dtype="float32").save_pretrained(Path(settings.output))
    typer.echo(f"{', '.join(probes)} fitted into {settings.output}")


if __name__ == "__main__":
    typer.run(main)
