"""A TOML file of `training/configs/export_*.toml`, and the bundles it asks for."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import AfterValidator, Field, with_config

from fashion_retrieval import FashionModel, checkpoint, hub
from fashion_retrieval.checkpoint.extras import Extras
from fashion_retrieval.checkpoint.folder import Bundle
from fashion_retrieval.config import ModelConfig
from fashion_retrieval.errors import ConfigError
from fashion_retrieval.models.composer import Composer
from fashion_retrieval.models.encoder import Encoder
from fashion_retrieval.taxonomy import Taxonomy
from training.engine.settings import SCHEMA, Fraction, ImageSize
from training.engine.weights import load_encoder, with_text_tower
from training.export.calibrate import fit_calibration
from training.export.figures import read_figures
from training.export.parts import check_output, check_parts, load_composer, load_segmenter
from training.export.rounding import garments, rounded_encoder


def _shipped_taxonomy(name: str) -> str:
    Taxonomy.load(name)
    return name


def _repo_id(name: str) -> str:
    if name:
        hub.check_repo_id(name)
    return name


@with_config(SCHEMA)
@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What to make a model folder of, and what its card says.

    Attributes:
        name: What the model calls itself.
        output: The model folder.
        encoders: Folders of training.train_raf_clip; the mean of their weights is taken.
        text: Folder of training.train_words, whose text tower takes the place of theirs, or none.
        image_size: (h, w) of the encoder's input, if it differs from that of the training.
        segmenter: Folder of training.train_segmenter, or none.
        composer: Model folder of training.train_agcn, or none.
        taxonomy: Name of a shipped one.
        weights_dtype: Type that the weights are stored in.
        data: The open data pack to calibrate probabilities on; without it they are not calibrated.
        calibration_split: A split of it that the weights were not trained on.
        license: License of the weights, an SPDX identifier.
        training_data: What the model was trained on, a line each.
        results: Files of training.evaluate with the figures of the card.
        repo_id: "org/name" where it will be published, which the card's examples load; without it they load the name.
        least_cosine: Below this between embeddings of the saved and the trained model, nothing is written.
        least_pixels: Below this fraction of pixels on which their segmenters agree, nothing is written.
    """

    name: str
    output: str
    encoders: Annotated[list[str], Field(min_length=1)]
    text: str = ""
    image_size: ImageSize | None = None
    segmenter: str = ""
    composer: str = ""
    taxonomy: Annotated[str, AfterValidator(_shipped_taxonomy)] = "default"
    weights_dtype: Literal["float16", "float32"] = "float16"
    data: str = ""
    calibration_split: str = "val"
    license: str
    training_data: list[str]
    results: list[str] = field(default_factory=list)
    repo_id: Annotated[str, AfterValidator(_repo_id)] = ""
    least_cosine: Fraction = 0.999
    least_pixels: Fraction = 0.99

    @property
    def card_id(self) -> str:
        """What the card's examples load."""
        return self.repo_id or self.name


def joined(settings: Settings) -> Bundle:
    """Encoder, segmenter and composer as they were trained, with a configuration and its calibration.

    Raises:
        ConfigError: Parts are missing or don't belong together, or the output holds something else.
        WeightsError: Weights are damaged.
    """
    check_parts(settings.encoders, settings.segmenter, settings.composer, settings.text)
    check_output(Path(settings.output))
    encoder = load_encoder(*map(Path, settings.encoders), image_size=settings.image_size or ()).eval()
    if settings.text:
        encoder = with_text_tower(encoder, Path(settings.text))
    segmenter = load_segmenter(Path(settings.segmenter)) if settings.segmenter else None
    composer = load_composer(Path(settings.composer)) if settings.composer else None
    if composer is not None:
        _check_belongs(composer, _as_stored(encoder, settings.weights_dtype), settings.composer)
    config = ModelConfig(
        name=settings.name,
        weights_dtype=settings.weights_dtype,
        taxonomy=settings.taxonomy,
        segmenter=segmenter.config if segmenter else None,
        composer=composer.config if composer else None,
        license=settings.license,
        training_data=tuple(settings.training_data),
    )
    bundle = Bundle(encoder=encoder, segmenter=segmenter, composer=composer, config=config)
    if not settings.data:
        return bundle
    draft = FashionModel(bundle, model_id=settings.name, dtype="float32")
    calibration = fit_calibration(draft, Path(settings.data), settings.calibration_split)
    return replace(bundle, config=replace(config, calibration=calibration))


def with_composer(settings: Settings, trained: Path) -> Bundle:
    """The model folder with another composer, and without figures, which were measured with another composer.

    Raises:
        ConfigError: The folder holds no model of ours, or the composer belongs to another encoder.
    """
    check_parts([], "", str(trained))
    bundle, config = _load(settings)
    composer = load_composer(trained)
    _check_belongs(composer, bundle.encoder, str(trained))
    return replace(bundle, composer=composer, config=replace(config, composer=composer.config, figures={}))


def with_segmenter(settings: Settings, trained: Path) -> Bundle:
    """The model folder with another segmenter, and without figures, which were measured with another one.

    Raises:
        ConfigError: The folder holds no model of ours, or the run no segmenter.
        WeightsError: The segmenter's weights are damaged.
    """
    check_parts([], str(trained), "")
    bundle, config = _load(settings)
    segmenter = load_segmenter(trained)
    return replace(bundle, segmenter=segmenter, config=replace(config, segmenter=segmenter.config, figures={}))


def in_bfloat16(settings: Settings) -> Bundle:
    """The model folder with an image tower whose weights bfloat16 holds exactly, and without figures.

    Its composer stays, since the embeddings keep their direction to the fourth digit of the cosine; the targets are
    measured again afterwards. Probes, the basis of shorter embeddings and embedded prompts go: make them again.

    Raises:
        ConfigError: The folder holds no model of ours, or the recipe names no photos to look at.
    """
    if not settings.data:
        raise ConfigError("rounding looks at photos; give the open data pack as `data`")
    bundle, config = _load(settings)
    encoder = rounded_encoder(bundle.encoder, garments(bundle.encoder, Path(settings.data)))
    composer = bundle.composer
    if composer is not None:
        fingerprint = _as_stored(encoder, settings.weights_dtype).fingerprint
        composer.config = replace(composer.config, encoder=fingerprint)
        config = replace(config, composer=composer.config)
    config = replace(config, probes={}, figures={})
    return replace(bundle, encoder=encoder, composer=composer, extras=Extras(), config=config)


def described(settings: Settings) -> Bundle:
    """The model folder with the recipe's license, training data and measured figures.

    Raises:
        ConfigError: The folder holds no model of ours; results are missing, have faults, or belong to other weights.
    """
    bundle, config = _load(settings)
    figures = read_figures([Path(path) for path in settings.results], config.sha256)
    training_data = tuple(settings.training_data)
    config = replace(config, license=settings.license, training_data=training_data, figures=figures)
    return replace(bundle, config=config)


def _load(settings: Settings) -> tuple[Bundle, ModelConfig]:
    bundle = checkpoint.load(Path(settings.output))
    if bundle.config is None:
        raise ConfigError(f"{settings.output} has no configuration; make it with `python -m training.export model`")
    return bundle, bundle.config


def _as_stored(encoder: Encoder, dtype: str) -> Encoder:
    """A copy with the weights rounded to `dtype`, in float32."""
    rounded = copy.deepcopy(encoder)
    rounded.clip.to(getattr(torch, dtype)).float()
    return rounded


def _check_belongs(composer: Composer, encoder: Encoder, where: str) -> None:
    if composer.config.encoder != encoder.fingerprint:
        raise ConfigError(
            f"the composer in {where} was trained on another encoder ({composer.config.encoder[:12]}…) than this one "
            f"as it is stored ({encoder.fingerprint[:12]}…); train it on the exported folder"
        )
