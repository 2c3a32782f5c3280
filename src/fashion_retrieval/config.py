"""The configuration beside a model's weights: `fashion_retrieval.json`.

What the encoder is stands in `open_clip_config.json`, as open_clip reads it; this file holds the rest.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self, TypeGuard, TypeVar

from fashion_retrieval.errors import ConfigError

SCHEMA_VERSION = 1
CONFIG_NAME = "fashion_retrieval.json"
ENCODER_CONFIG_NAME = "open_clip_config.json"
ENCODER_WEIGHTS_NAME = "open_clip_model.safetensors"
SEGMENTER_WEIGHTS_NAME = "segmenter.safetensors"
COMPOSER_WEIGHTS_NAME = "composer.safetensors"
WEIGHTS_DTYPES = ("float32", "float16")
VARIANTS = ("sum", "only_text", "only_image", "add", "agcn")


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmenterConfig:
    """What the embedded garment segmenter is.

    Attributes:
        architecture: The name its module is built by.
        image_size: Height and width of its input, in pixels.
        classes: Kinds of garment it tells apart, in the order of its outputs.
        mean: Per channel (RGB), subtracted from pixels in [0, 1].
        std: Per channel (RGB), divided by.
    """

    architecture: str
    image_size: tuple[int, int]
    classes: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class ComposerConfig:
    """What the composer is.

    Attributes:
        embedding_dim: Width of the encoder's embeddings.
        variant: "agcn", or an ablation: "sum" (no network), "only_text", "only_image", "add" (both, not gated).
        width: Of its tokens.
        depth: Blocks in each branch.
        heads: Of each attention; they divide the width.
        hidden: Width inside the feed-forward layers.
        dropout: In training, in [0, 1).
        encoder: Fingerprint of the encoder it was trained on; it works with no other.
    """

    embedding_dim: int
    variant: str = "agcn"
    width: int = 512
    depth: int = 6
    heads: int = 8
    hidden: int = 2048
    dropout: float = 0.1
    encoder: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured figure.

    Attributes:
        value: A share in [0, 1] or another number.
        interval: Low and high end of its 95% bootstrap interval, where it was computed.
        metric: What it is: "accuracy", "macro-F1", "recall@10" ...
        task: What was asked of the model, in the Hub's words where it has one: "zero-shot-image-classification" ...
        data: What it was measured on.
    """

    value: float
    interval: tuple[float, float] | None = None
    metric: str = ""
    task: str = ""
    data: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Everything about a published model that open_clip's own file does not say.

    Attributes:
        schema_version: Of this file; a newer one than `SCHEMA_VERSION` is refused.
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

    schema_version: int = SCHEMA_VERSION
    name: str
    weights_dtype: str = "float32"
    taxonomy: str | dict[str, Any] = "default"
    calibration: dict[str, float] = field(default_factory=dict)
    thresholds: dict[str, float] = field(default_factory=dict)
    segmenter: SegmenterConfig | None = None
    composer: ComposerConfig | None = None
    license: str = "unknown"
    training_data: tuple[str, ...] = ()
    figures: dict[str, Figure] = field(default_factory=dict)
    sha256: dict[str, str] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, data: object, where: str) -> Self:
        """Read the parsed JSON of a configuration.

        Args:
            data: What `to_dict` gives.
            where: The file, named in errors.

        Raises:
            ConfigError: A newer schema, or all faults of the file in one message.
        """
        if not isinstance(data, Mapping):
            raise ConfigError(f"{where} must hold a JSON object, got {type(data).__name__}")
        version = data.get("schema_version")
        if _is_int(version) and version > SCHEMA_VERSION:
            raise ConfigError(
                f"{where} has schema_version {version}, this release reads up to {SCHEMA_VERSION}; "
                "upgrade with: pip install -U fashion-retrieval"
            )
        faults = ["'schema_version' is missing"] if version is None else []
        arguments = _read(cls, _MODEL_RULES, data, "", faults)
        if isinstance(arguments.get("segmenter"), Mapping):
            arguments["segmenter"] = _read_part(
                SegmenterConfig, _SEGMENTER_RULES, arguments["segmenter"], "segmenter", faults
            )
        if isinstance(arguments.get("composer"), Mapping):
            arguments["composer"] = _read_part(
                ComposerConfig, _COMPOSER_RULES, arguments["composer"], "composer", faults
            )
            _check_composer(arguments["composer"], faults)
        if isinstance(arguments.get("figures"), Mapping):
            arguments["figures"] = _read_figures(arguments["figures"], faults)
        if faults:
            raise ConfigError(f"{where} has {len(faults)} fault(s): {'; '.join(faults)}")
        return cls(**arguments)

    def to_dict(self) -> dict[str, Any]:
        """The dict that `from_dict` reads back to an equal configuration; keys sorted but for the taxonomy's own."""
        data = dataclasses.asdict(self)
        return {key: data[key] if key == "taxonomy" else _plain(data[key]) for key in sorted(data)}

    def to_json(self) -> str:
        """The file's text: two equal configurations give the same bytes."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


Part = TypeVar("Part", SegmenterConfig, ComposerConfig, Figure)


class _Rule(NamedTuple):
    """What a value must be: in words, as a test, and what it becomes."""

    expected: str
    accepts: Callable[[Any], bool]
    convert: Callable[[Any], Any]


def _read(
    kind: type[Any], rules: Mapping[str, _Rule], data: Mapping[str, Any], prefix: str, faults: list[str]
) -> dict[str, Any]:
    unknown = sorted(str(key) for key in data if key not in rules)
    if unknown:
        faults.append(f"unknown keys {', '.join(prefix + key for key in unknown)} (known: {', '.join(sorted(rules))})")
    required = {f.name for f in dataclasses.fields(kind) if _has_no_default(f)}
    faults.extend(f"'{prefix}{key}' is missing" for key in sorted(required - data.keys()))
    arguments = {}
    for key, rule in rules.items():
        if key not in data:
            continue
        if rule.accepts(data[key]):
            arguments[key] = rule.convert(data[key])
        else:
            faults.append(f"'{prefix}{key}' must be {rule.expected}, got {data[key]!r:.80}")
    return arguments


def _read_part(
    kind: type[Part], rules: Mapping[str, _Rule], data: Mapping[str, Any], name: str, faults: list[str]
) -> Part | None:
    before = len(faults)
    arguments = _read(kind, rules, data, f"{name}.", faults)
    return kind(**arguments) if len(faults) == before else None


def _read_figures(data: Mapping[str, Any], faults: list[str]) -> dict[str, Figure | None]:
    return {
        name: _read_part(
            Figure, _FIGURE_RULES, given if isinstance(given, Mapping) else {"value": given}, f"figures.{name}", faults
        )
        for name, given in data.items()
    }


def _check_composer(composer: ComposerConfig | None, faults: list[str]) -> None:
    if composer is not None and composer.width % composer.heads:
        faults.append(f"'composer.heads' must divide the width, {composer.width}, got {composer.heads}")


def _has_no_default(f: dataclasses.Field[Any]) -> bool:
    return f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: _plain(value[key]) for key in sorted(value)}
    return list(value) if isinstance(value, tuple) else value


def _is_int(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


def _is_file_name(value: str) -> bool:
    return value not in ("", ".", "..") and not set(value) & set("/\\:")


def _list_of(accepts: Callable[[Any], bool], length: int | None = None) -> Callable[[Any], bool]:
    def check(value: object) -> bool:
        return isinstance(value, list | tuple) and length in (None, len(value)) and all(map(accepts, value))

    return check


def _map_of(accepts: Callable[[Any], bool]) -> Callable[[Any], bool]:
    def check(value: object) -> bool:
        return isinstance(value, Mapping) and all(map(_is_text, value)) and all(map(accepts, value.values()))

    return check


def _floats(values: Mapping[str, float]) -> dict[str, float]:
    return {key: float(value) for key, value in values.items()}


def _positive(value: object) -> bool:
    return _is_number(value) and value > 0


_MODEL_RULES = {
    "schema_version": _Rule("a whole number from 1", lambda v: _is_int(v) and v >= 1, int),
    "name": _Rule("a text", _is_text, str),
    "weights_dtype": _Rule(f"one of {', '.join(WEIGHTS_DTYPES)}", lambda v: v in WEIGHTS_DTYPES, str),
    "taxonomy": _Rule(
        "the name of a shipped taxonomy or a whole taxonomy", lambda v: _is_text(v) or isinstance(v, dict), lambda v: v
    ),
    "calibration": _Rule("a factor above 0 for each group", _map_of(_positive), _floats),
    "thresholds": _Rule(
        "a probability from 0 to 1 for each group", _map_of(lambda v: _is_number(v) and 0 <= v <= 1), _floats
    ),
    "segmenter": _Rule("an object or null", lambda v: v is None or isinstance(v, Mapping), lambda v: v),
    "composer": _Rule("an object or null", lambda v: v is None or isinstance(v, Mapping), lambda v: v),
    "license": _Rule("a text", _is_text, str),
    "training_data": _Rule("a list of texts", _list_of(_is_text), tuple),
    "figures": _Rule(
        "a finite number or an object for each name",
        _map_of(lambda v: _is_number(v) or isinstance(v, Mapping)),
        lambda v: v,
    ),
    "sha256": _Rule(
        "64 lower-case hex digits for each file name",
        lambda v: _map_of(_is_digest)(v) and all(map(_is_file_name, v)),
        dict,
    ),
}

_SEGMENTER_RULES = {
    "architecture": _Rule("a text", _is_text, str),
    "image_size": _Rule(
        "[height, width] in pixels, whole numbers above 0", _list_of(lambda v: _is_int(v) and v > 0, 2), tuple
    ),
    "classes": _Rule("a list of at least one text", lambda v: _list_of(_is_text)(v) and len(v) > 0, tuple),
    "mean": _Rule("3 numbers", _list_of(_is_number, 3), lambda v: tuple(map(float, v))),
    "std": _Rule("3 numbers above 0", _list_of(_positive, 3), lambda v: tuple(map(float, v))),
}

_WORDS = _Rule("a text", lambda v: isinstance(v, str), str)
_FIGURE_RULES = {
    "value": _Rule("a finite number", _is_number, float),
    "interval": _Rule(
        "[low, high], low not above high, or null",
        lambda v: v is None or (_list_of(_is_number, 2)(v) and v[0] <= v[1]),
        lambda v: v and (float(v[0]), float(v[1])),
    ),
    "metric": _WORDS,
    "task": _WORDS,
    "data": _WORDS,
}

_COUNT = _Rule("a whole number above 0", lambda v: _is_int(v) and v > 0, int)
_COMPOSER_RULES = {
    "embedding_dim": _COUNT,
    "variant": _Rule(f"one of {', '.join(VARIANTS)}", lambda v: v in VARIANTS, str),
    "width": _COUNT,
    "depth": _COUNT,
    "heads": _COUNT,
    "hidden": _COUNT,
    "dropout": _Rule("a number from 0 to below 1", lambda v: _is_number(v) and 0 <= v < 1, float),
    "encoder": _Rule("64 lower-case hex digits", _is_digest, str),
}
