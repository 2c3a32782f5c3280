"""Tiny deterministic models and drawn photos for the tests: small enough to build in a fraction of a second."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from open_clip.model import CLIP, CustomTextCLIP
from PIL import Image, ImageDraw
from safetensors.torch import save_file

from fashion_retrieval import checkpoint
from fashion_retrieval.config import ModelConfig

TINY_CONFIG: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "patch_size": 8, "layers": 2, "width": 32, "head_width": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
    },
    "preprocess_cfg": {
        "size": 32,
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25],
        "interpolation": "bicubic",
        "resize_mode": "squash",
    },
}
"""A plain CLIP as LAION's ViT-B/32, with towers of two layers; the tokenizer's own vocabulary needs all its words."""


def altered(**model: Any) -> dict[str, Any]:
    """`TINY_CONFIG` with other model settings; those of a tower are merged."""
    config = copy.deepcopy(TINY_CONFIG)
    for key, value in model.items():
        if isinstance(value, dict) and key in config["model_cfg"]:
            config["model_cfg"][key] |= value
        else:
            config["model_cfg"][key] = value
    return config


def tiny_clip(config: Mapping[str, Any] = TINY_CONFIG, *, seed: int = 0) -> CLIP | CustomTextCLIP:
    """The open_clip model of a config, initialized from `seed`; the global generator is left as it was."""
    settings = copy.deepcopy(dict(config["model_cfg"]))
    kind = CustomTextCLIP if settings.pop("custom_text", False) else CLIP
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind(**settings).eval()


def tiny_folder(folder: Path, config: Mapping[str, Any] = TINY_CONFIG, *, seed: int = 0) -> Path:
    """Write a plain open_clip folder (config and safetensors, nothing of ours) and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    save_file(tiny_clip(config, seed=seed).state_dict(), folder / "open_clip_model.safetensors", {"format": "pt"})
    return folder


def saved_folder(folder: Path, source: Path) -> Path:
    """Write the model in the folder `source` as this package does, weights in float16, and return the new folder."""
    config = ModelConfig(name="tiny", weights_dtype="float16")
    checkpoint.save(replace(checkpoint.load(source), config=config), folder)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder without subfolders, by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def tree(folder: Path) -> dict[str, bytes]:
    """The files of a folder and of its subfolders, by their path in it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def drawn_photo(size: tuple[int, int] = (48, 64), *, seed: int = 0) -> Image.Image:
    """An RGB picture, (width, height) in pixels: shapes of random colors on a light background."""
    generator = np.random.default_rng(seed)
    width, height = size
    image = Image.new("RGB", size, (235, 235, 230))
    draw = ImageDraw.Draw(image)
    for _ in range(4):
        x0, x1 = sorted(int(x) for x in generator.integers(0, width, 2))
        y0, y1 = sorted(int(y) for y in generator.integers(0, height, 2))
        draw.rectangle((x0, y0, x1, y1), fill=tuple(int(c) for c in generator.integers(0, 256, 3)))
    return image


def photo_folder(folder: Path) -> Path:
    """Write four photos, one of them in a subfolder, and a file that is none; return the folder."""
    (folder / "inner").mkdir(parents=True)
    for name in ("a.png", "b.JPG", "inner/a.webp", "nothing.png"):
        drawn_photo((48, 64)).save(folder / name)
    (folder / "notes.txt").write_text("not a photo", encoding="utf-8")
    return folder
