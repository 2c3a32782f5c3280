"""Pickled weights become safetensors; a pickle that holds more is never run."""

from __future__ import annotations

import os
import pickle
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from fashion_retrieval import checkpoint
from fashion_retrieval.cli import app
from fashion_retrieval.errors import WeightsError
from fashion_retrieval.export.pickles import convert_folder
from tests.support.tiny import tiny_clip, tiny_folder

WEIGHTS = "open_clip_model.safetensors"


class Runs:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_convert_turns_pickles_into_safetensors(tmp_path: Path) -> None:
    state = {"module.a": torch.arange(6.0).reshape(2, 3).T, "module.b": torch.ones(1, dtype=torch.int64)}
    torch.save({"state_dict": state}, tmp_path / "open_clip_pytorch_model.bin")
    torch.save({"c": torch.zeros(2)}, tmp_path / "pytorch_model.bin")
    done = CliRunner().invoke(app, ["models", "convert", str(tmp_path)])
    assert done.exit_code == 0
    assert done.stdout.splitlines()[0] == f"{tmp_path / WEIGHTS}: 2 tensors"
    assert torch.equal(load_file(tmp_path / WEIGHTS)["a"], state["module.a"])
    assert load_file(tmp_path / "model.safetensors").keys() == {"c"}


@pytest.mark.parametrize(
    ("name", "key"),
    [("open_clip_pytorch_model.bin", "state_dict"), ("epoch_32.pt", "state_dict"), ("finetuned_clip.pt", "CLIP")],
)
def test_a_converted_folder_loads(tmp_path: Path, name: str, key: str) -> None:
    tiny_folder(tmp_path)
    (tmp_path / WEIGHTS).rename(tmp_path / "kept")
    torch.save({"epoch": 32, key: tiny_clip().state_dict()}, tmp_path / name)
    with pytest.raises(WeightsError, match="fashion-retrieval models convert"):
        checkpoint.load(tmp_path)
    convert_folder(tmp_path)
    converted = checkpoint.load(tmp_path).encoder.fingerprint
    (tmp_path / "kept").replace(tmp_path / WEIGHTS)
    assert checkpoint.load(tmp_path).encoder.fingerprint == converted


@pytest.mark.parametrize("data", [b"no pickle", b"", {"a": 1}, [1]], ids=["none", "empty", "number", "list"])
def test_convert_refuses_more_than_tensors(tmp_path: Path, data: object) -> None:
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(data if isinstance(data, bytes) else pickle.dumps(data, 2))
    with pytest.raises(WeightsError, match=re.escape(f"{path} can't be read as weights alone (")) as caught:
        convert_folder(tmp_path)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["pytorch_model.bin"]


def test_convert_runs_no_code(tmp_path: Path) -> None:
    torch.save({"a": Runs(tmp_path / "made")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="can't be read as weights alone"):
        convert_folder(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["pytorch_model.bin"]


def test_convert_of_a_folder_without_pickles_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="found neither; download the repository first"):
        convert_folder(tmp_path)
    (tmp_path / "pytorch_model.bin").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(WeightsError, match="is only a pointer of Git LFS"):
        convert_folder(tmp_path)
