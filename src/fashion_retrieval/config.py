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
PROBES_WEIGHTS_NAME = "probes.safetensors"
DIMENSIONS_NAME = "dimensions.safetensors"
PROMPTS_NAME = "prompts.safetensors"
WEIGHTS_DTYPES = ("float32", "float16")
VARIANTS = ("sum", "only_text", "only_image", "add", "agcn")
RESIDUALS = ("none", "text", "both")

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

    The classes are in the order of its outputs; mean and std, per channel (RGB), are of pixels in [0, 1].
    """

    architecture: Text  # timm's name of the backbone
    image_size: Annotated[tuple[Count, Count], Field(description="[height, width] in pixels, whole numbers above 0")]
    classes: Annotated[tuple[Text, ...], Field(min_length=1, description="a list of at least one text")]
    mean: Annotated[tuple[float, float, float], Field(description="3 numbers")]
    std: Annotated[tuple[Positive, Positive, Positive], Field(description="3 numbers above 0")]


@with_config(STRICT)
@dataclass(frozen=True, slots=True, kw_only=True)
class ComposerConfig:
    """The composer: "agcn", or an ablation: "sum" (no network), "only_text", "only_image", "add" (both, not gated)."""

    embedding_dim: Count  # of the encoder
    variant: Annotated[str, one_of(VARIANTS)] = "agcn"
    width: Count = 512  # of the composer's tokens
    depth: Count = 6  # blocks in each branch
    heads: Count = 8  # of each attention; they divide the width
    hidden: Count = 2048  # width inside the feed-forward layers
    dropout: Annotated[float, Field(ge=0, lt=1, description="a number from 0 to below 1")] = 0.1
    residual: Annotated[str, one_of(RESIDUALS)] = "text"  # branches that change a pooled embedding; "none": the paper
    encoder: Digest  # fingerprint of the encoder that the composer was trained on; it works with no other

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ConfigError(f"'composer.heads' must divide the width, {self.width}, got {self.heads}")


@with_config(STRICT)
@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeConfig:
    """What `FashionModel.fit_attribute`, or a recipe, learned of one attribute group."""

    values: Annotated[tuple[Text, ...], Field(min_length=1, description="a list of at least one text")]
    encoder: Digest  # fingerprint of the encoder whose embeddings it was fitted on; it works with no other


@with_config(STRICT)
@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured figure, with its 95% bootstrap interval where it was computed."""

    value: Annotated[float, Field(description="a finite number")]
    interval: Annotated[
        tuple[float, float] | None, AfterValidator(_ordered), Field(description="[low, high] or null")
    ] = None
    metric: str = ""  # "accuracy", "macro-F1", "recall@10" ...
    task: str = ""  # in the Hub's words where it has some: "zero-shot-image-classification" ...
    data: str = ""  # what it was measured on


@with_config(STRICT)
@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Everything about a published model that open_clip's own file does not say."""

    schema_version: Annotated[int, Field(ge=1, description="a whole number from 1")] = SCHEMA_VERSION
    name: Text
    weights_dtype: Annotated[str, one_of(WEIGHTS_DTYPES)] = "float32"  # in the file; they are loaded as float32
    taxonomy: Annotated[
        Text | dict[str, Any], Field(description="the name of a shipped taxonomy or a whole taxonomy")
    ] = "default"
    calibration: dict[Text, Positive] = field(default_factory=dict)  # group -> factor on the logits
    thresholds: dict[Text, Probability] = field(default_factory=dict)  # group -> the least that is reported
    segmenter: SegmenterConfig | None = None
    composer: ComposerConfig | None = None
    probes: dict[Text, ProbeConfig] = field(default_factory=dict)  # by attribute group
    license: Text = "unknown"  # SPDX identifier, of the weights
    training_data: Annotated[tuple[Text, ...], Field(description="a list of texts")] = ()
    figures: dict[Text, Figure] = field(default_factory=dict)  # a file may hold plain numbers
    encoder: Digest | None = None  # the encoder's fingerprint, so that it need not be computed on loading
    sha256: dict[FileName, Digest] = field(default_factory=dict)  # of each other file, checked on loading

    licence = renamed_attribute("licence", "license")

    @classmethod
    def from_dict(cls, data: object, where: str) -> Self:
        """Read the parsed JSON of a configuration, also one that an earlier release wrote.

        A ConfigError, which names `where`, tells of a newer schema, or of all faults of the file at once.
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
        for table in ("calibration", "thresholds"):
            if isinstance(groups := given.get(table), Mapping) and "color" not in groups:
                given[table] = {"color" if group == "colour" else group: number for group, number in groups.items()}
        if isinstance(given.get("figures"), Mapping):
            figures = given["figures"].items()
            given["figures"] = {key: one if isinstance(one, Mapping) else {"value": one} for key, one in figures}
        return validate(cls, given, where, ConfigError)

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """The configuration of a model folder; None where it has none, as plain open_clip folders."""
        path = folder / CONFIG_NAME
        if not path.is_file():
            return None
        return cls.from_dict(read_object(path, remedy="download the model again"), str(path))

    def to_dict(self) -> dict[str, Any]:
        """The dict that `from_dict` reads back to an equal configuration; keys sorted but for the taxonomy's own."""
        data = dataclasses.asdict(self)
        for name in ("probes", "encoder"):  # earlier releases don't know these keys
            if not data[name]:
                del data[name]
        return {key: data[key] if key == "taxonomy" else _plain(data[key]) for key in sorted(data)}

    def to_json(self) -> str:
        """The file's text: two equal configurations give the same bytes."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: _plain(value[key]) for key in sorted(value)}
    return list(value) if isinstance(value, tuple) else value
