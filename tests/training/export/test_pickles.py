"""Pickled weights become safetensors; a pickle that holds more is never run."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.support.exported import WEIGHTS, refused, run


def test_convert_folder_turns_pickles_into_safetensors(tmp_path: Path) -> None:
    state = {"module.a": torch.arange(6.0).reshape(2, 3).T, "module.b": torch.ones(1, dtype=torch.int64)}
    torch.save({"state_dict": state}, tmp_path / "open_clip_pytorch_model.bin")
    torch.save({"c": torch.zeros(2)}, tmp_path / "pytorch_model.bin")
    done = run("convert", tmp_path)
    assert done.exit_code == 0
    assert done.stdout.splitlines()[0] == f"{tmp_path / WEIGHTS}: 2 tensors"
    assert torch.equal(load_file(tmp_path / WEIGHTS)["a"], state["module.a"])
    assert load_file(tmp_path / "model.safetensors").keys() == {"c"}


@pytest.mark.parametrize(
    "data",
    [b"no pickle", pickle.dumps(print, 2), pickle.dumps({"a": 1}, 2), pickle.dumps([1], 2)],
    ids=["none", "code", "1", "l"],
)
def test_convert_folder_refuses_more_than_tensors(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(data)
    assert str(tmp_path / "pytorch_model.bin") in refused(run("convert", tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["pytorch_model.bin"]


def test_convert_folder_without_pickles_is_refused(tmp_path: Path) -> None:
    assert "found neither; download the repository first" in refused(run("convert", tmp_path))
