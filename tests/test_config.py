from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from fashion_retrieval.config import SCHEMA_VERSION, Figure, ModelConfig, SegmenterConfig
from fashion_retrieval.errors import ConfigError

SEGMENTER = SegmenterConfig(
    architecture="fpn_lite0", image_size=(256, 192), classes=("upper", "bag"), mean=(0.5, 0.5, 0.5), std=(0.2, 0.3, 0.4)
)
FULL = ModelConfig(
    name="compact",
    weights_dtype="float16",
    taxonomy={"name": "mine", "category": {"values": ["b", "a"]}, "attributes": {"z": {}, "a": {}}},
    calibration={"sleeve": 1.5, "category": 0.75},
    thresholds={"sleeve": 0.4},
    segmenter=SEGMENTER,
    license="Apache-2.0",
    training_data=("pack", "fashioniq"),
    figures={"mean_precision": Figure(value=0.88, interval=(0.86, 0.9), metric="accuracy", data="val")},
    sha256={"open_clip_model.safetensors": "0" * 64},
)


def changed(**changes: Any) -> dict[str, Any]:
    return FULL.to_dict() | changes


def test_from_dict_of_a_bare_file_fills_in_the_defaults() -> None:
    config = ModelConfig.from_dict({"schema_version": 1, "name": "m"}, "x")
    assert config == ModelConfig(name="m")
    assert (config.schema_version, config.weights_dtype, config.taxonomy) == (1, "float32", "default")
    assert (config.segmenter, config.calibration, config.license) == (None, {}, "unknown")


def test_to_json_read_back_is_equal_and_byte_identical() -> None:
    again = ModelConfig.from_dict(json.loads(FULL.to_json()), "x")
    assert again == FULL
    assert again.segmenter == SEGMENTER
    assert again.to_json() == FULL.to_json()


def test_to_json_sorts_keys_and_keeps_the_order_of_the_taxonomy() -> None:
    text = FULL.to_json()
    data = json.loads(text)
    assert text.endswith("}\n")
    assert list(data) == sorted(data)
    assert list(data["calibration"]) == ["category", "sleeve"]
    assert list(data["segmenter"]) == sorted(data["segmenter"])
    assert list(data["taxonomy"]["attributes"]) == ["z", "a"]
    assert '\n  "calibration": {' in text


def test_from_dict_turns_whole_numbers_into_floats() -> None:
    config = ModelConfig.from_dict(changed(calibration={"sleeve": 1}), "x")
    assert '"sleeve": 1.0' in config.to_json()


def test_from_dict_of_a_newer_schema_says_upgrade_before_anything_else() -> None:
    with pytest.raises(ConfigError, match=r"f\.json has schema_version 2.*pip install -U fashion-retrieval"):
        ModelConfig.from_dict({"schema_version": SCHEMA_VERSION + 1, "from_the_future": 1}, "f.json")


def test_from_dict_names_unknown_keys_at_both_levels() -> None:
    segmenter = FULL.to_dict()["segmenter"] | {"color": 1}
    with pytest.raises(ConfigError) as caught:
        ModelConfig.from_dict(changed(tresholds={}, segmenter=segmenter), "f.json")
    assert "f.json has 2 fault(s)" in str(caught.value)
    assert "unknown keys tresholds" in str(caught.value)
    assert "unknown keys segmenter.color" in str(caught.value)


def test_from_dict_names_all_faults_in_one_line() -> None:
    data = {"weights_dtype": "int8", "thresholds": {"sleeve": 1.5}, "segmenter": {"image_size": [0, 5]}}
    with pytest.raises(ConfigError) as caught:
        ModelConfig.from_dict(data, "f.json")
    message = str(caught.value)
    for part in (
        "'schema_version' must be a whole number from 1, got None",
        "'name' is missing",
        "'weights_dtype' must be one of float32, float16, got 'int8'",
        "'thresholds.sleeve' must be a probability from 0 to 1, got 1.5",
        "'segmenter.image_size' must be [height, width] in pixels, whole numbers above 0, got [0, 5]",
        "'segmenter.classes' is missing",
    ):
        assert part in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("schema_version", True),
        ("schema_version", 0),
        ("schema_version", "1"),
        ("name", " "),
        ("taxonomy", 3),
        ("taxonomy", None),
        ("calibration", {"sleeve": 0}),
        ("calibration", {"sleeve": float("nan")}),
        ("calibration", [1.0]),
        ("thresholds", {"sleeve": "high"}),
        ("segmenter", "fpn"),
        ("segmenter", SEGMENTER.__class__),
        ("training_data", "pack"),
        ("sha256", {"w": "abc"}),
    ],
)
def test_from_dict_refuses_values_out_of_range(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"'{key}(\.\w+)?' must be"):
        ModelConfig.from_dict(changed(**{key: value}), "f.json")


@pytest.mark.parametrize(
    ("key", "value"),
    [("std", [0.5, 0.5, 0.0]), ("mean", [0.5]), ("classes", []), ("image_size", [32, 32, 3]), ("architecture", None)],
)
def test_from_dict_refuses_segmenter_values_out_of_range(key: str, value: object) -> None:
    segmenter = FULL.to_dict()["segmenter"] | {key: value}
    with pytest.raises(ConfigError, match=rf"'segmenter\.{key}(\.\d)?' must be"):
        ModelConfig.from_dict(changed(segmenter=segmenter), "f.json")


@pytest.mark.parametrize(
    ("figure", "fault"),
    [
        (None, "'figures.f.value' must be a finite number, got None"),
        ({}, "'figures.f.value' is missing"),
        ({"value": float("inf")}, "'figures.f.value' must be a finite number"),
        ({"value": 0.5, "interval": [0.6, 0.4]}, "'figures.f.interval' must be [low, high], low not above high"),
        ({"value": 0.5, "metric": 1}, "'figures.f.metric' must be a text"),
        ({"value": 0.5, "unit": "%"}, "unknown keys figures.f.unit"),
    ],
)
def test_from_dict_refuses_figures_out_of_range(figure: object, fault: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ModelConfig.from_dict(changed(figures={"f": figure}), "f.json")
    assert fault in str(caught.value)


def test_from_dict_refuses_a_digest_of_a_path() -> None:
    with pytest.raises(ConfigError, match=r"key '\.\./w' of 'sha256' must be the name of a file, no path"):
        ModelConfig.from_dict(changed(sha256={"../w": "0" * 64}), "f.json")


def test_from_dict_takes_a_plain_number_as_a_figure() -> None:
    config = ModelConfig.from_dict(changed(figures={"f": 1}), "x")
    assert config.figures == {"f": Figure(value=1.0)}


@pytest.mark.parametrize("data", [None, [], "text", 1])
def test_from_dict_refuses_anything_but_an_object(data: object) -> None:
    with pytest.raises(ConfigError, match=r"f\.json must hold a JSON object"):
        ModelConfig.from_dict(data, "f.json")


def test_config_is_imported_without_torch() -> None:
    code = "import sys, fashion_retrieval.config; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_from_dict_reads_the_keys_of_an_earlier_release_and_to_json_writes_the_new_ones() -> None:
    template = "a photo of {colour} {category}"
    old = FULL.to_dict() | {"licence": "MIT", "taxonomy": {"category": {"template": template, "values": ["a", "b"]}}}
    del old["license"]
    config = ModelConfig.from_dict(old, "x")
    assert config.license == "MIT"
    assert isinstance(config.taxonomy, dict)
    assert config.taxonomy["category"] == {"template": "a photo of {color} {category}", "values": ["a", "b"]}
    assert "licence" not in config.to_json()
    assert "colour" not in config.to_json()
    old["taxonomy"]["category"]["template"] = [template, "{category}"]
    assert ModelConfig.from_dict(old, "x").to_dict()["taxonomy"]["category"]["template"] == [
        "a photo of {color} {category}",
        "{category}",
    ]


def test_from_dict_refuses_a_key_given_under_both_names() -> None:
    with pytest.raises(ConfigError, match=r"unknown keys licence \(did you mean license\?\)"):
        ModelConfig.from_dict(changed(licence="MIT"), "f.json")


def test_from_dict_with_the_group_colour_of_an_earlier_release_reads_color() -> None:
    old = FULL.to_dict() | {"calibration": {"colour": 1.5, "sleeve": 2.0}, "thresholds": {"colour": 0.25}}
    config = ModelConfig.from_dict(old, "f.json")
    assert (config.calibration, config.thresholds) == ({"color": 1.5, "sleeve": 2.0}, {"color": 0.25})
    both = ModelConfig.from_dict(FULL.to_dict() | {"calibration": {"colour": 1.5, "color": 1.25}}, "f.json")
    assert both.calibration == {"colour": 1.5, "color": 1.25}
