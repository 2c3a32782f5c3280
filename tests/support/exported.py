"""What trainings leave behind, tiny: encoder, segmenter, composer; the recipe and the command that export them."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from click.testing import Result
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from fashion_retrieval import FashionModel, checkpoint
from fashion_retrieval.config import ComposerConfig, ModelConfig, SegmenterConfig
from fashion_retrieval.models.composer import Composer
from fashion_retrieval.models.segmenter import GarmentSegmenter
from tests.support.tiny import tiny_folder
from training.export.__main__ import app

WEIGHTS = "open_clip_model.safetensors"
SEGMENTER = SegmenterConfig(
    architecture="tf_efficientnet_lite0",
    image_size=(64, 64),
    classes=("background", "person", "upper"),
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)


def trained_encoder(folder: Path, *, seed: int = 0) -> Path:
    """An open_clip folder whose weights float16 holds exactly, as a composer trained on it needs."""
    tiny_folder(folder, seed=seed)
    state = {name: tensor.half().float() for name, tensor in load_file(folder / WEIGHTS).items()}
    save_file(state, folder / WEIGHTS, {"format": "pt"})
    return folder


def trained_segmenter(folder: Path) -> Path:
    """As `training.train_segmenter` leaves it."""
    folder.mkdir(parents=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = GarmentSegmenter(SEGMENTER).state_dict()
    (folder / "segmenter.json").write_text(json.dumps(asdict(SEGMENTER)), encoding="utf-8")
    save_file(state, folder / "segmenter.safetensors")
    return folder


def trained_composer(folder: Path, encoder: Path, *, seed: int = 0) -> Path:
    """As `training.train_agcn` leaves it: the model it was trained on, with a composer."""
    bundle = checkpoint.load(encoder)
    shape = ComposerConfig(embedding_dim=16, width=16, depth=1, heads=2, hidden=16, encoder=bundle.encoder.fingerprint)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        composer = Composer(shape).eval()
    joined = replace(bundle, composer=composer, config=ModelConfig(name="trained", composer=shape))
    return FashionModel(joined, model_id="trained", device="cpu", dtype="float32").save_pretrained(folder)


def write_recipe(path: Path, **changes: Any) -> Path:
    """A TOML file; None leaves a key out."""
    settings = {
        "name": "tiny",
        "output": str(path.parent / "tiny"),
        "encoders": [str(path.parent / "encoder")],
        "license": "MIT",
        "training_data": ["Drawn shirts, CC0"],
    } | changes
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items() if value is not None]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def run(*arguments: object) -> Result:
    """`python -m training.export …`."""
    return CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)


def refused(done: Result) -> str:
    """The one line of a command that failed."""
    assert done.exit_code == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    return line
