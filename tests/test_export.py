"""Averaged weights, and the model folder they go into."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.tiny import tiny_clip, tiny_folder
from training.export import _average
from training.train_raf_clip import load_encoder


def test_the_average_of_encoders_is_the_mean_of_their_weights(tmp_path: Path) -> None:
    folders = [tiny_folder(tmp_path / str(seed), seed=seed) for seed in (0, 1)]
    mean = _average([load_encoder(folder) for folder in folders]).clip.state_dict()
    first, second = (tiny_clip(seed=seed).state_dict() for seed in (0, 1))
    for name, value in mean.items():
        torch.testing.assert_close(value, (first[name] + second[name]) / 2)
    assert not torch.equal(first["visual.proj"], second["visual.proj"])


def test_the_average_of_one_is_itself(tmp_path: Path) -> None:
    encoder = _average([load_encoder(tiny_folder(tmp_path))])
    assert all(torch.equal(value, tiny_clip().state_dict()[name]) for name, value in encoder.clip.state_dict().items())
