from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from fashion_retrieval import checkpoint
from fashion_retrieval.errors import ConfigError, ModelNotFoundError, WeightsError
from tests.support.tiny import TINY_CONFIG, altered, saved_folder, tiny_clip, tiny_folder

WEIGHTS = "open_clip_model.safetensors"


def change_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    return tiny_folder(tmp_path / "plain")


@pytest.fixture
def ours(tmp_path: Path, plain: Path) -> Path:
    return saved_folder(tmp_path / "ours", plain)


@pytest.mark.parametrize("name", ["open_clip_pytorch_model.bin", "pytorch_model.bin", "epoch_32.pt"])
def test_pickled_weights_are_refused_with_the_command(plain: Path, name: str) -> None:
    folder = plain.rename(plain.with_name("a model"))
    (folder / WEIGHTS).rename(folder / name)
    with pytest.raises(WeightsError) as caught:
        checkpoint.load(folder)
    assert str(caught.value).endswith(f"fashion-retrieval models convert '{folder}'")
    assert name in str(caught.value)


def test_missing_tensors_are_named(plain: Path) -> None:
    state = load_file(plain / WEIGHTS)
    gone = sorted(state)[:5]
    save_file({name: tensor for name, tensor in state.items() if name not in gone}, plain / WEIGHTS)
    with pytest.raises(WeightsError) as caught:
        checkpoint.load(plain)
    assert "is a file for another architecture" in str(caught.value)
    assert f"missing: {', '.join(gone[:3])} and 2 more" in str(caught.value)


def test_load_refuses_weights_of_another_architecture(plain: Path) -> None:
    wider = tiny_clip(altered(text_cfg={"layers": 3}, vision_cfg={"patch_size": 16}))
    save_file(wider.state_dict(), plain / WEIGHTS)
    with pytest.raises(WeightsError) as caught:
        checkpoint.load(plain)
    assert "unexpected: transformer.resblocks.2.attn.in_proj_bias" in str(caught.value)
    assert "of another shape or type: visual.conv1.weight (32, 3, 16, 16) instead of (32, 3, 8, 8)" in str(caught.value)


def test_quantized_weights_are_not_taken_for_floats(plain: Path) -> None:
    state = load_file(plain / WEIGHTS)
    save_file(state | {"visual.proj": state["visual.proj"].to(torch.int8)}, plain / WEIGHTS)
    with pytest.raises(
        WeightsError, match=r"of another shape or type: visual\.proj \(32, 16\) of whole numbers instead of \(32, 16\)"
    ):
        checkpoint.load(plain)


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"not weights at all", None])
def test_load_refuses_damaged_weights(plain: Path, content: bytes | None) -> None:
    whole = (plain / WEIGHTS).read_bytes()
    (plain / WEIGHTS).write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(WeightsError, match=r"is truncated, corrupt or missing .*; download it again"):
        checkpoint.load(plain)


@pytest.mark.parametrize("name", [WEIGHTS, "open_clip_config.json"])
def test_altered_files_are_noticed(ours: Path, name: str) -> None:
    data = bytearray((ours / name).read_bytes())
    data[-2] ^= 1
    (ours / name).write_bytes(bytes(data))
    with pytest.raises(WeightsError, match=r"was altered or cut off: expected sha256 .*; download the model again"):
        checkpoint.load(ours)


def test_a_missing_file_is_noticed(ours: Path) -> None:
    (ours / WEIGHTS).unlink()
    with pytest.raises(WeightsError, match=f"expected the file {WEIGHTS}.*download the model again"):
        checkpoint.load(ours)


def test_config_faults_are_config_errors(ours: Path) -> None:
    path = ours / "fashion_retrieval.json"
    good = path.read_bytes()
    change_json(path, extra=1)
    with pytest.raises(ConfigError, match=r"fashion_retrieval\.json has 1 fault\(s\): unknown keys extra"):
        checkpoint.load(ours)
    change_json(path, schema_version=2)
    with pytest.raises(ConfigError, match="pip install -U fashion-retrieval"):
        checkpoint.load(ours)
    for content in (good[:-10], b"", b"\xff\xfe", b"[" * 100_000):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=r"fashion_retrieval\.json is not valid JSON"):
            checkpoint.load(ours)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"model_cfg": {"vision_cfg": {}}}', '{"model_cfg": 3}'])
def test_load_refuses_a_faulty_open_clip_config(plain: Path, content: str) -> None:
    (plain / "open_clip_config.json").write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"open_clip_config\.json"):
        checkpoint.load(plain)


@pytest.mark.parametrize(
    "config",
    [
        altered(from_the_future=1),
        altered(vision_cfg={"pool_type": "max"}),
        altered(vision_cfg={"timm_model_name": "no_such_model"}),
        altered(text_cfg={"width": 33}),
        TINY_CONFIG | {"preprocess_cfg": {"resize_mode": "sideways"}},
        TINY_CONFIG | {"preprocess_cfg": {"mean": [0.5, 0.5]}},
    ],
)
def test_what_open_clip_cant_build_is_a_config_error(plain: Path, config: dict[str, Any]) -> None:
    (plain / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(
        ConfigError, match=r"must (describe a model that open_clip|be one of shortest, .*, got 'sideways')"
    ) as caught:
        checkpoint.load(plain)
    assert "\n" not in str(caught.value)


def test_load_of_a_folder_without_a_model_says_what_is_missing(tmp_path: Path, plain: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="found none at"):
        checkpoint.load(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelNotFoundError, match="found no model"):
        checkpoint.load(tmp_path / "empty")
    (plain / WEIGHTS).unlink()
    with pytest.raises(WeightsError, match=r"found open_clip_config\.json; download the model again"):
        checkpoint.load(plain)
    shutil.rmtree(plain)
    with pytest.raises(ModelNotFoundError):
        checkpoint.load(plain)
