"""The check of an installation."""

import json
from importlib.metadata import version

import numpy as np
import pytest
from huggingface_hub import constants

import fashion_retrieval
from fashion_retrieval import FashionModel, diagnostics
from fashion_retrieval.backends import examine
from fashion_retrieval.hub import download


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """In the place of the embedded model: a configuration, and a file that it was not written for."""
    (tmp_path / "fashion_retrieval.json").write_text(
        json.dumps({"schema_version": 1, "name": "x", "sha256": {"segmenter.safetensors": "0" * 64}})
    )
    monkeypatch.setattr(download, "resolve", lambda name: tmp_path)
    return tmp_path


def test_doctor_of_a_sound_installation_has_no_problems(tmp_path, monkeypatch):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "a").write_bytes(b"x" * 700)
    (tmp_path / "model.safetensors").symlink_to(tmp_path / "blobs" / "a")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(diagnostics, "_PACKAGES", ("numpy", "no-such-package"))
    findings = fashion_retrieval.doctor(device="cpu", dtype="float32")
    assert findings["problems"] == []
    assert findings["version"] == version("fashion-retrieval")
    assert findings["packages"] == {"numpy": np.__version__, "no-such-package": None}
    assert findings["hub"] == {"offline": True, "cache": str(tmp_path), "cache_bytes": 700}
    assert findings["embedded_model"]["bytes"] > 40_000_000
    assert findings["self_test"]["garments"] >= 1
    assert min(findings["self_test"].values()) > 0
    assert all(near["ok"] and 0.99 < near["picture"] <= 1 for near in findings["near_float32"].values())
    assert json.loads(json.dumps(findings)) == findings


def test_doctor_with_backends_tells_of_one_that_computes_otherwise(folder, monkeypatch):
    (folder / "fashion_retrieval.json").write_text(json.dumps({"schema_version": 1, "name": "x"}))
    cosines = {"onnx": {"onnx fp32 in float32": {"picture": 0.5, "text": 1.0, "ok": False}}}
    monkeypatch.setattr(examine, "examine", lambda path, backend: cosines.get(backend, {}))
    monkeypatch.setattr(diagnostics, "_time_one_photo", lambda *given: {})
    findings = fashion_retrieval.doctor(device="cpu", backends=True)
    assert findings["near_float32"] == cosines["onnx"]
    (problem,) = findings["problems"]
    assert problem.startswith("onnx fp32 in float32 computes otherwise on this processor; use dtype='float32', or ")
    assert fashion_retrieval.doctor(device="cpu")["near_float32"] == {}


def test_doctor_finds_an_altered_embedded_model(folder):
    findings = fashion_retrieval.doctor(device="cpu")
    assert findings["embedded_model"] == findings["self_test"] == {}
    assert findings["hardware"]["device"].startswith("cpu")
    (problem,) = findings["problems"]
    assert problem.startswith(
        f"WeightsError: expected the file segmenter.safetensors in {folder}, found none; reinstall"
    )


def test_doctor_tells_an_altered_file_from_a_missing_one(folder):
    (folder / "segmenter.safetensors").write_bytes(b"x")
    (problem,) = fashion_retrieval.doctor(device="cpu")["problems"]
    assert problem.startswith(f"WeightsError: {folder / 'segmenter.safetensors'} was altered or cut off: ")
    assert problem.endswith("; reinstall it: pip install --force-reinstall fashion-retrieval")


def test_doctor_with_an_unknown_device_fails_only_in_that_part(folder):
    (folder / "fashion_retrieval.json").write_text(json.dumps({"schema_version": 1, "name": "x"}))
    findings = fashion_retrieval.doctor(device="abacus")
    assert findings["hardware"] == findings["self_test"] == {}
    assert findings["embedded_model"]["folder"] == str(folder)
    (problem,) = findings["problems"]
    assert problem.startswith("InputError: ")
    assert "abacus" in problem


def test_doctor_with_a_failing_self_test_has_one_line_for_any_error(monkeypatch):
    def fail(**options):
        raise RuntimeError(f"out of memory\n  at {options['device']}")

    monkeypatch.setattr(FashionModel, "from_pretrained", fail)
    findings = fashion_retrieval.doctor(device="cpu")
    assert findings["self_test"] == {}
    assert findings["problems"] == ["RuntimeError: out of memory at cpu"]
