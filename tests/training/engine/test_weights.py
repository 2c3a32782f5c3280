"""Encoders on disk, their means and what lies between two of them."""

import json

import pytest
import torch

from fashion_retrieval.errors import ConfigError, WeightsError
from tests.support.tiny import altered, contents, tiny_clip, tiny_folder
from training.engine.weights import interpolated, load_encoder, save_encoder
from training.random_start import main as write_random
from training.random_start import random_encoder


def test_the_mean_of_encoders_is_the_mean_of_their_weights(tmp_path):
    folders = [tiny_folder(tmp_path / str(seed), seed=seed) for seed in (0, 1)]
    first, second = (tiny_clip(seed=seed).state_dict() for seed in (0, 1))
    assert not torch.equal(first["visual.proj"], second["visual.proj"])
    for name, value in load_encoder(*folders).clip.state_dict().items():
        torch.testing.assert_close(value, (first[name] + second[name]) / 2)
    for name, value in load_encoder(folders[1]).clip.state_dict().items():
        assert torch.equal(value, second[name])


def test_what_is_saved_is_loaded_alike(tmp_path):
    encoder = load_encoder(tiny_folder(tmp_path / "a"))
    save_encoder(encoder, tmp_path / "b")
    assert load_encoder(tmp_path / "b").fingerprint == encoder.fingerprint
    assert contents(tmp_path / "b").keys() == {"open_clip_config.json", "open_clip_model.safetensors"}


def test_interpolation_lies_on_the_line_between_start_and_end():
    start = {"w": torch.tensor([0.0, 2.0]), "n": torch.tensor(1)}
    end = {"w": torch.tensor([4.0, 0.0]), "n": torch.tensor(5)}
    between = interpolated(start, end, 0.25)
    assert (between["w"].tolist(), between["n"].item()) == ([1.0, 1.5], 5)
    assert torch.equal(interpolated(start, end, 1.0)["w"], end["w"])


def test_faults_of_a_folder_are_named(tmp_path):
    with pytest.raises(ConfigError, match=rf"{tmp_path} must be an open_clip folder, but its open_clip_config.json"):
        load_encoder(tmp_path)
    folder = tiny_folder(tmp_path / "a")
    other = tiny_folder(tmp_path / "b", altered(embed_dim=8))
    with pytest.raises(WeightsError, match=r"the weights of .*/a, .*/b don't fit .*/a/open_clip_config.json"):
        load_encoder(folder, other)
    weights = folder / "open_clip_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(WeightsError, match=rf"{weights} can't be read as weights"):
        load_encoder(folder)


def test_a_random_start_is_the_architecture_with_the_seeds_weights(tmp_path, monkeypatch, capsys):
    model = altered()["model_cfg"]
    monkeypatch.setattr("open_clip.get_model_config", {"tiny": model}.get)
    write_random("tiny", tmp_path / "start", seed=3)
    assert capsys.readouterr().out == f"tiny with random weights written to {tmp_path}/start\n"
    encoder = load_encoder(tmp_path / "start")
    assert encoder.fingerprint == random_encoder("tiny", 3).fingerprint != random_encoder("tiny", 4).fingerprint
    assert json.loads((tmp_path / "start/open_clip_config.json").read_text())["model_cfg"] == model
    with pytest.raises(ConfigError, match=r"got .nothing.; known are .*ViT-B-32"):
        random_encoder("nothing")
