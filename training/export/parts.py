"""What the trainings wrote: checks and loaders; and a check of the place for the model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file

from fashion_retrieval import checkpoint
from fashion_retrieval.checkpoint.export_manifest import RUNTIMES
from fashion_retrieval.config import (
    COMPOSER_WEIGHTS_NAME,
    CONFIG_NAME,
    ENCODER_CONFIG_NAME,
    ENCODER_WEIGHTS_NAME,
    SEGMENTER_WEIGHTS_NAME,
    SegmenterConfig,
)
from fashion_retrieval.errors import ConfigError, WeightsError
from fashion_retrieval.models.composer import Composer
from fashion_retrieval.models.segmenter import GarmentSegmenter

SEGMENTER_CONFIG = "segmenter.json"
_ENCODER = (ENCODER_CONFIG_NAME, ENCODER_WEIGHTS_NAME)
_SEGMENTER = (SEGMENTER_CONFIG, SEGMENTER_WEIGHTS_NAME)
_COMPOSER = (CONFIG_NAME, COMPOSER_WEIGHTS_NAME)
_ENDINGS = {".json", ".md", ".model", ".safetensors", ".txt"}
"""Suffixes of the files of a model folder."""


def check_parts(encoders: Sequence[str], segmenter: str, composer: str, text: str = "") -> None:
    """Refuse folders that lack a file.

    Raises:
        ConfigError: Files are missing; the message names all, and the trainings that write them.
    """
    wanted = [(folder, _ENCODER, "train_raf_clip") for folder in encoders]
    wanted += [(text, _ENCODER, "train_words")] if text else []
    wanted += [(segmenter, _SEGMENTER, "train_segmenter")] if segmenter else []
    wanted += [(composer, _COMPOSER, "train_agcn")] if composer else []
    faults = [
        f"{Path(folder, name)} (of training.{recipe})"
        for folder, names, recipe in wanted
        for name in names
        if not Path(folder, name).is_file()
    ]
    if faults:
        raise ConfigError(f"{len(faults)} trained file(s) not found: {', '.join(faults)}; train first, or correct it")


def check_output(output: Path) -> None:
    """Refuse a place that holds something other than a model.

    Raises:
        ConfigError: It does, or is a file.
    """
    if output.is_file():
        raise ConfigError(f"output must be a folder, {output} is a file; name another")
    found = output.iterdir() if output.is_dir() else ()
    others = sorted(path.name for path in found if path.suffix not in _ENDINGS and path.name not in RUNTIMES)
    if others:
        raise ConfigError(f"output {output} holds other things than a model ({', '.join(others[:3])}); name another")


def load_segmenter(folder: Path) -> GarmentSegmenter:
    """The segmenter that `training.train_segmenter` wrote.

    Raises:
        ConfigError: Its configuration is missing or has a fault.
        WeightsError: Its weights are missing, damaged or of another architecture.
    """
    path = folder / SEGMENTER_CONFIG
    try:
        data = json.loads(path.read_bytes())
        lists = {name: tuple(value) for name, value in data.items() if isinstance(value, list)}
        segmenter = GarmentSegmenter(SegmenterConfig(**(data | lists)))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} is not the configuration of a segmenter ({error}); train it again") from error
    try:
        segmenter.load_state_dict(load_file(folder / SEGMENTER_WEIGHTS_NAME))
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise WeightsError(
            f"{folder / SEGMENTER_WEIGHTS_NAME} does not fit {path.name} ({reason}); train it again"
        ) from error
    return segmenter.eval()


def load_composer(folder: Path) -> Composer:
    """The composer of the model that `training.train_agcn` wrote.

    Raises:
        ConfigError: It has none.
    """
    composer = checkpoint.load(folder).composer
    if composer is None:
        raise ConfigError(f"expected a model with a composer in {folder}; train it with training.train_agcn")
    return composer
