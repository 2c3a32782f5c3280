"""The configuration beside a model's weights: `fashion_retrieval.json`, and the names of the files that it describes.

The encoder is described by `open_clip_config.json`, as open_clip reads it; this file holds the rest.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, with_config

from fashion_retrieval._utils.deprecation import renamed_attribute, with_color_placeholder
from fashion_retrieval._utils.files import read_object
from fashion_retrieval._utils.validation import STRICT, Text, one_of, requirement, validate
from fashion_retrieval.errors import ConfigError

SCHEMA_VERSION = 1
CONFIG_NAME = "fashion_retrieval.json"
ENCODER_CONFIG_NAME = "open_clip_config.json"
ENCODER_WEIGHTS_NAME = "open_clip_model.safetensors"
SEGMENTER_WEIGHTS_NAME = "segmenter.safetensors"
COMPOSER_WEIGHTS_NAME = "composer.safetensors"
WEIGHTS_DTYPES = ("float32", "float16")
VARIANTS = ("sum", "only_text", "only_image", "add", "agcn")

Positive = Annotated[float, Field(gt=0, description="a number above 0")]
Probability = Annotated[float, Field(ge=0, le=1, description="a probability from 0 to 1")]
Count = Annotated[int, Field(gt=0, description="a whole number above 0")]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="64 lower-case hex digits")]
FileName = Annotated[str, Field(pattern=r"^[^/\\:]*[^/\\:.][^/\\:]*$", description="the name of a file, no path")]


def _ordered(interval: tuple[float, float] | None) -> tuple[float, float] | None:
    if interval and interval[0] > interval[1]:
        raise requirement("be [low, high], low not above high")
    return interval


@with_config(STRICT)
@dataclass(frozen=True, slots=True, kw_only=True)
class SegmenterConfig:
    """What the embedded garment segmenter is.

    Attributes:
        architecture: timm's name of its backbone.
        image_size: Height and width of its input, in pixels.
        classes: Class labels, in the order of its outputs.
        mean: Per channel (RGB), subtracted from pixels in [0, 1].
        std: Per channel (RGB), pixels are divided by it.
    """

    architecture: Text
    image_size: Annotated[tuple[Count, Count], Field(description="[height, width] in pixels, whole numbers above 0")]
    classes: Annotated[tuple[Text, ...], Field(min_length=1, description="a list of at least one text")]
    mean: Annotated[tuple[float, float, float], Field(description="3 numbers")]
    std: Annotated[tuple[Positive, Positive, Positive], Field(description="3 numbers above 0")]


@with_config(STRICT)
@dataclass(frozen=True, slots=True, kw_only=True)
class ComposerConfig:
    """What the composer is.

    Attributes:
        embedding_dim: Width of the encoder's embeddings.
        variant: "agcn", or an ablation: "sum" (no network), "only_text", "only_image", "add" (both, not gated).
        width: Width of the composer's tokens.
        depth: Number of blocks in each branch.
        heads: Number of heads of each attention; it divides the width.
        hidden: Width inside the feed-forward layers.
        dropout: Probability of dropout in training, in [0, 1).
        encoder: Fingerprint of the encoder that the composer was trained on; it works with no other.
    """

    embedding_dim: Count
    variant: Annotated[str, one_of(VARIANTS)] = "agcn"
    width: Count = 512
    depth: Count = 6
    heads: Count = 8
    hidden: Count = 2048
    dropout: Annotated[float, Field(ge=0, lt=1, description="a number from 0 to below 1")] = 0.1
    encoder: Digest

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ConfigError(f"'composer.heads' must divide the width, {self.width}, got {self.heads}")


@with_config(STRICT)
@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured figure.

    Attributes:
        value: A fraction in [0, 1] or another number.
        interval: Low and high end of its 95% bootstrap interval, where it was computed.
        metric: Name of the metric: "accuracy", "macro-F1", "recall@10" ...
        task: What was asked of the model, in the Hub's words where it has one: "zero-shot-image-classification" ...
        data: What it was measured on.
    """

    value: Annotated[float, Field(description="a finite number")]
    interval: Annotated[
        tuple[float, float] | None, AfterValidator(_ordered), Field(description="[low, high] or null")
    ] = None
    metric: str = ""
    task: str = ""
    data: str = ""


@with_config(STRICT)
@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Everything about a published model that open_clip's own file does not say.

    Attributes:
        schema_version: Version of the file's format; one above `SCHEMA_VERSION` is refused.
        name: What the model calls itself.
        weights_dtype: The type its weights are stored in, "float32" or "float16"; they are always loaded as float32.
        taxonomy: The name of a shipped taxonomy, or a whole one as a dict.
        calibration: Group -> factor on the logits that makes the probabilities honest.
        thresholds: Group -> probability in [0, 1] below which a value is not reported.
        segmenter: None for a model without one.
        composer: None for a model without one.
        license: SPDX identifier of the weights' license, or "unknown".
        training_data: Names of the data sets it was trained on.
        figures: Measured figures by name; a file may hold plain numbers.
        sha256: File name -> hex digest of each other file of the folder, checked on loading.
    """

    schema_version: Annotated[int, Field(ge=1, description="a whole number from 1")] = SCHEMA_VERSION
    name: Text
    weights_dtype: Annotated[str, one_of(WEIGHTS_DTYPES)] = "float32"
    taxonomy: Annotated[
        Text | dict[str, Any], Field(description="the name of a shipped taxonomy or a whole taxonomy")
    ] = "default"
    calibration: dict[Text, Positive] = field(default_factory=dict)
    thresholds: dict[Text, Probability] = field(default_factory=dict)
    segmenter: SegmenterConfig | None = None
    composer: ComposerConfig | None = None
    license: Text = "unknown"
    training_data: Annotated[tuple[Text, ...], Field(description="a list of texts")] = ()
    figures: dict[Text, Figure] = field(default_factory=dict)
    sha256: dict[FileName, Digest] = field(default_factory=dict)

    licence = renamed_attribute("licence", "license")

    @classmethod
    def from_dict(cls, data: object, where: str) -> Self:
        """Read the parsed JSON of a configuration, also one that an earlier release wrote.

        Args:
            data: What `to_dict` gives.
            where: The file, named in errors.

        Raises:
            ConfigError: A newer schema, or all faults of the file in one message.
        """
        if not isinstance(data, Mapping):
            raise ConfigError(f"{where} must hold a JSON object, got {type(data).__name__}")
        version = data.get("schema_version")
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise ConfigError(
                f"{where} has schema_version {version}, this release reads up to {SCHEMA_VERSION}; "
                "upgrade with: pip install -U fashion-retrieval"
            )
        given = {**data, "schema_version": version}
        if "licence" in given and "license" not in given:
            given["license"] = given.pop("licence")
        if isinstance(given.get("taxonomy"), Mapping):
            given["taxonomy"] = with_color_placeholder(given["taxonomy"])
        if isinstance(given.get("figures"), Mapping):
            figures = given["figures"].items()
            given["figures"] = {key: one if isinstance(one, Mapping) else {"value": one} for key, one in figures}
        return validate(cls, given, where, ConfigError)

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """The configuration of a model folder; None where it has none, as plain open_clip folders.

        Raises:
            ConfigError: The file is not JSON, or `from_dict` refuses what it holds.
        """
        path = folder / CONFIG_NAME
        if not path.is_file():
            return None
        return cls.from_dict(read_object(path, remedy="download the model again"), str(path))

    def to_dict(self) -> dict[str, Any]:
        """The dict that `from_dict` reads back to an equal configuration; keys sorted but for the taxonomy's own."""
        data = dataclasses.asdict(self)
        return {key: data[key] if key == "taxonomy" else _plain(data[key]) for key in sorted(data)}

    def to_json(self) -> str:
        """The file's text: two equal configurations give the same bytes."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: _plain(value[key]) for key in sorted(value)}
    return list(value) if isinstance(value, tuple) else value
