"""Encoders as open_clip folders, and weights between two of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from fashion_retrieval.config import ENCODER_CONFIG_NAME, ENCODER_WEIGHTS_NAME
from fashion_retrieval.errors import ConfigError, WeightsError
from fashion_retrieval.models.encoder import Encoder, build_encoder
from training.engine.files import write_whole


def load_encoder(*folders: Path, image_size: Sequence[int] = ()) -> Encoder:
    """An open_clip folder with its weights, strictly.

    Args:
        folders: Encoders trained from one another; the mean of their weights is taken (Wortsman et al., 2022).
        image_size: (h, w), another size of input for a CNN tower.

    Raises:
        ConfigError: The configuration is missing or can't be built.
        WeightsError: The weights are missing, damaged or of another architecture.
    """
    try:
        config = json.loads((folders[0] / ENCODER_CONFIG_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{folders[0]} must be an open_clip folder, but its {ENCODER_CONFIG_NAME} can't be read ({error})"
        ) from error
    if image_size:
        config["model_cfg"]["vision_cfg"]["image_size"] = list(image_size)
        config["preprocess_cfg"]["size"] = list(image_size)
    encoder = build_encoder(config, folders[0])
    states = [_read(folder / ENCODER_WEIGHTS_NAME) for folder in folders]
    try:
        mean = {name: _mean([state[name] for state in states]) for name in states[0]}
        encoder.clip.load_state_dict(mean)
    except (KeyError, RuntimeError) as error:
        names = ", ".join(map(str, folders))
        raise WeightsError(f"the weights of {names} don't fit {folders[0] / ENCODER_CONFIG_NAME} ({error})") from error
    return encoder


def save_encoder(encoder: Encoder, folder: Path) -> None:
    """Write an open_clip folder; each file whole or not at all."""
    state = {name: value.detach().cpu().contiguous() for name, value in encoder.clip.state_dict().items()}
    write_whole(folder / ENCODER_CONFIG_NAME, (json.dumps(encoder.config, indent=2) + "\n").encode())
    write_whole(folder / ENCODER_WEIGHTS_NAME, save(state))


def interpolated(start: Mapping[str, Tensor], end: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Weights on the line from `start` to `end`, `share` of the way (WiSE-FT, Wortsman et al., 2022)."""
    return {
        name: torch.lerp(start[name], value, share) if value.is_floating_point() else value
        for name, value in end.items()
    }


def _mean(values: Sequence[Tensor]) -> Tensor:
    """One alone stays as it is, to the bit: the mean of -0.0 would be 0.0, and the fingerprint another."""
    return torch.stack([*values]).mean(0) if len(values) > 1 and values[0].is_floating_point() else values[0]


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path} can't be read as weights ({error}); download or train them again") from error
