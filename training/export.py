"""Make a publishable model folder, or convert pickled weights to safetensors.

python -m training.export model training/configs/export_compact.toml
python -m training.export composer src/fashion_retrieval/assets/compact runs/agcn_compact/model
python -m training.export convert FOLDER
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from safetensors.torch import load_file, save_file

from fashion_retrieval import FashionModel, checkpoint
from fashion_retrieval.checkpoint import Bundle
from fashion_retrieval.config import ModelConfig, SegmenterConfig
from fashion_retrieval.errors import ConfigError, FashionRetrievalError
from fashion_retrieval.models.segmenter import WEIGHTS_NAME, GarmentSegmenter
from training.calibrate import fit_calibration
from training.loop import read_settings
from training.train_raf_clip import load_encoder

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One TOML file."""

    name: str
    encoders: list[str]
    segmenter: str
    output: str
    data: str
    licence: str
    training_data: list[str]
    weights_dtype: str = "float16"
    calibration_split: str = "val"
    image_size: list[int] = field(default_factory=list)
    """Of the encoder's input, where it is not that of the training."""


@app.command()
def model(config: Path) -> None:
    """Join encoder and segmenter, calibrate, save, reload and compare."""
    settings = read_settings(config, Settings)
    encoder = load_encoder(*map(Path, settings.encoders), image_size=settings.image_size).eval()
    segmenter = load_segmenter(Path(settings.segmenter))
    card = ModelConfig(
        name=settings.name,
        weights_dtype=settings.weights_dtype,
        segmenter=segmenter.config,
        licence=settings.licence,
        training_data=tuple(settings.training_data),
    )
    output = Path(settings.output)
    bundle = Bundle(encoder=encoder, segmenter=segmenter, config=card)
    draft = FashionModel(bundle, model_id=settings.name, dtype="float32")
    calibration = fit_calibration(draft, Path(settings.data), settings.calibration_split)
    FashionModel(
        replace(bundle, config=replace(card, calibration=calibration)), model_id=settings.name
    ).save_pretrained(output)
    typer.echo(f"calibration {calibration}")
    _compare(draft, FashionModel.from_pretrained(output, dtype="float32"))
    typer.echo(f"{settings.name} written to {output}: {sum(p.stat().st_size for p in output.iterdir()) / 1e6:.1f} MB")


@app.command()
def composer(folder: Path, trained: Path) -> None:
    """Put the composer of a model that `training.train_agcn` wrote into the folder of the same encoder."""
    bundle, source = checkpoint.load(folder), checkpoint.load(trained)
    if bundle.config is None or source.config is None or source.composer is None:
        raise ConfigError(f"expected a model of ours in {folder} and one with a composer in {trained}; train it first")
    if bundle.encoder.fingerprint != source.encoder.fingerprint:
        raise ConfigError(f"the composer in {trained} was trained on another encoder than that of {folder}")
    config = replace(bundle.config, composer=source.config.composer)
    joined = replace(bundle, composer=source.composer, config=config)
    FashionModel(joined, model_id=config.name).save_pretrained(folder)
    typer.echo(f"{folder} has a composer of {sum(p.numel() for p in source.composer.parameters()):,} parameters")


@app.command()
def figures(
    folder: Path,
    results: Path,
    composed: Annotated[Path | None, typer.Option(help="Of training.evaluate composed.")] = None,
) -> None:
    """Put measured figures (a results file of training.evaluate) into the model's configuration and card."""
    measured = json.loads(results.read_text(encoding="utf-8"))
    loaded = checkpoint.load(folder)
    if loaded.config is None:
        raise ConfigError(f"{folder} has no configuration; make it with `python -m training.export model`")
    every = measured["recognition"]["deepfashion"]["all"]
    table: dict[str, float] = {
        "attributes, mean precision of six groups": every["mean_precision"],
        "attributes, mean macro-F1": every["mean_macro_f1"],
        "attributes on street photos, mean precision": measured["recognition"]["deepfashion"]["street"][
            "mean_precision"
        ],
        "category, top-1": measured["recognition"]["category"]["top1"],
        "dominant colour, top-1 of 13": measured["recognition"]["colour"]["top1"],
        "segmenter, clothing IoU": measured["segmentation"]["clothing_iou"],
        "segmenter, garments found": measured["segmentation"]["found"],
        "end to end recall on street photos": measured["segmentation"]["end_to_end"]["category_right_and_box"],
    }
    if composed is not None:
        average = json.loads(composed.read_text(encoding="utf-8"))["protocols"]["full"]["average"]
        table["composed retrieval among all products, R@10"] = average["recall_at_10"]
        table["composed retrieval among all products, R@50"] = average["recall_at_50"]
    bundle = replace(loaded, config=replace(loaded.config, figures=table))
    FashionModel(bundle, model_id=loaded.config.name).save_pretrained(folder)


@app.command()
def convert(source: Annotated[Path, typer.Argument(help="A folder with pickled weights.")]) -> None:
    """Rewrite pickled weights as safetensors, beside them; the pickle is read with weights_only=True."""
    pickles = {"open_clip_pytorch_model.bin": "open_clip_model.safetensors", "pytorch_model.bin": "model.safetensors"}
    found = {old: new for old, new in pickles.items() if (source / old).is_file()}
    for old, new in found.items():
        _convert(source / old, source / new)
    if not found:
        typer.echo(
            f"error: expected {' or '.join(pickles)} in {source}, found neither; download the repository first",
            err=True,
        )
        raise typer.Exit(1)


def _convert(old: Path, new: Path) -> None:
    state: dict[str, Any] = torch.load(old, map_location="cpu", weights_only=True)
    state = state.get("state_dict", state)
    tensors = {name.removeprefix("module."): tensor.contiguous().clone() for name, tensor in state.items()}
    save_file(tensors, new, metadata={"format": "pt"})
    typer.echo(f"{new}: {len(tensors)} tensors")


def load_segmenter(folder: Path) -> GarmentSegmenter:
    """What `training.train_segmenter` wrote."""
    data = json.loads((folder / "segmenter.json").read_text(encoding="utf-8"))
    lists = {name: tuple(value) for name, value in data.items() if isinstance(value, list)}
    segmenter = GarmentSegmenter(SegmenterConfig(**(data | lists)))
    segmenter.load_state_dict(load_file(folder / WEIGHTS_NAME))
    return segmenter.eval()


def _compare(before: FashionModel, after: FashionModel) -> None:
    texts = ["a photo of red dress", "a photo of long sleeve blue jacket", "sneakers"]
    photo = np.random.default_rng(0).integers(0, 256, (256, 192, 3), dtype=np.uint8)
    cosines = [float((before.encode(texts=texts) * after.encode(texts=texts)).sum(1).min())]
    cosines.append(float((before.encode(images=photo) * after.encode(images=photo)).sum()))
    typer.echo(f"least cosine of the reloaded model to the trained one: texts {cosines[0]:.6f}, photo {cosines[1]:.6f}")


def main() -> None:
    """Run the command; errors are one line."""
    try:
        app()
    except FashionRetrievalError as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
