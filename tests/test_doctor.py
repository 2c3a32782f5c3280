"""The check of an installation."""

import json

import fashion_retrieval
from fashion_retrieval import hub


def test_doctor_finds_an_altered_embedded_model(tmp_path, monkeypatch):
    (tmp_path / "fashion_retrieval.json").write_text(
        json.dumps({"schema_version": 1, "name": "x", "sha256": {"segmenter.safetensors": "0" * 64}})
    )
    monkeypatch.setattr(hub, "resolve", lambda name: tmp_path)
    findings = fashion_retrieval.doctor(device="cpu")
    assert findings["embedded_model"] == findings["self_test"] == {}
    assert findings["hardware"]["device"].startswith("cpu")
    (problem,) = findings["problems"]
    assert problem.startswith(f"WeightsError: {tmp_path / 'segmenter.safetensors'} is missing; reinstall")
