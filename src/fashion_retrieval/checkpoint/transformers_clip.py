"""Models in the transformers CLIP layout (`config.json`, `model.safetensors`), turned into open_clip's."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fashion_retrieval._utils.files import asset
from fashion_retrieval.errors import ConfigError, UnsupportedError

_LAYOUT = json.loads(asset("transformers/clip.json"))
"""Defaults of both towers' settings, and open_clip's names of tensors by those of transformers."""
_VOCABULARY = 49408
_END_OF_TEXT = (49407, 2)  # 2 stands in files written before transformers corrected it; pooling is the same
_RESAMPLE = {2: "bilinear", 3: "bicubic"}

_DROPPED = {"text_model.embeddings.position_ids", "vision_model.embeddings.position_ids"}
_LAYER = re.compile(r"(text|vision)_model\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")


def open_clip_config(
    config: Mapping[str, Any], preprocessor: Mapping[str, Any] | None, where: str
) -> dict[str, dict[str, Any]]:
    """The `open_clip_config.json` for a parsed `config.json` and `preprocessor_config.json` (None: CLIP's usual one).

    Errors name `where`, the folder.
    """
    if config.get("model_type") != "clip":
        raise UnsupportedError(
            f"{where} must hold a model of type 'clip', got {config.get('model_type')!r}; "
            "use a repository in the open_clip layout (open_clip_config.json, open_clip_model.safetensors)"
        )
    text = _section(config, "text_config", where)
    vision = _section(config, "vision_config", where)
    if text["vocab_size"] != _VOCABULARY or text["eos_token_id"] not in _END_OF_TEXT:
        got = f"{text['vocab_size']} tokens with end-of-text {text['eos_token_id']}"
        raise UnsupportedError(
            f"{where} must use CLIP's vocabulary of {_VOCABULARY} tokens, got {got}; use another model"
        )
    activations = {text["hidden_act"], vision["hidden_act"]}
    if activations not in ({"quick_gelu"}, {"gelu"}):
        got = ", ".join(sorted(map(str, activations)))
        raise UnsupportedError(f"{where} must use 'gelu' or 'quick_gelu' in both towers, got {got}; use another model")
    model: dict[str, Any] = {
        "embed_dim": _whole(config.get("projection_dim", 512), "projection_dim", where),
        "vision_cfg": {
            **_tower(vision),
            "image_size": vision["image_size"],
            "patch_size": vision["patch_size"],
            "head_width": vision["hidden_size"] // vision["num_attention_heads"],
        },
        "text_cfg": {
            **_tower(text),
            "context_length": text["max_position_embeddings"],
            "vocab_size": text["vocab_size"],
            "heads": text["num_attention_heads"],
        },
    }
    if activations == {"quick_gelu"}:
        model["quick_gelu"] = True
    return {"model_cfg": model, "preprocess_cfg": _preprocessing(preprocessor or {}, vision["image_size"], where)}


def open_clip_weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a transformers CLIP state dict; names it does not know stay, so that strict loading reports them."""
    converted: dict[str, Tensor] = {}
    attention: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        layer = _LAYER.fullmatch(name)
        if name in _LAYOUT["transposed"]:
            converted[_LAYOUT["transposed"][name]] = tensor.T
        elif layer is None:
            if name not in _DROPPED:
                converted[_LAYOUT["renamed"].get(name, name)] = tensor
        else:
            tower, index, part, kind = layer.groups()
            prefix = f"{'visual.' if tower == 'vision' else ''}transformer.resblocks.{index}"
            if part in _LAYOUT["layers"]:
                converted[f"{prefix}.{_LAYOUT['layers'][part]}.{kind}"] = tensor
            else:
                attention.setdefault(f"{prefix}.attn.in_proj_{kind}", {})[part] = tensor
    for name, parts in attention.items():
        ordered = [parts[key] for key in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj") if key in parts]
        converted[name] = torch.cat(ordered) if ordered else next(iter(parts.values()))
    return converted


def _section(config: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    """A tower's settings; as in transformers, an older file's `text_config_dict` stands above its `text_config`."""
    older = config.get(f"{key}_dict")
    given = config.get(key, {}) if older is None else older
    if not isinstance(given, Mapping):
        raise ConfigError(f"{where}: '{key}' must be an object, got {type(given).__name__}; download the model again")
    section = {name: given.get(name, default) for name, default in _LAYOUT[key].items()}
    for name, default in _LAYOUT[key].items():
        if isinstance(default, int):
            _whole(section[name], f"{key}.{name}", where)
    if not isinstance(section["layer_norm_eps"], float):
        raise ConfigError(f"{where}: '{key}.layer_norm_eps' must be a number; download the model again")
    if section["hidden_size"] % section["num_attention_heads"]:
        raise ConfigError(
            f"{where}: '{key}.hidden_size' must be a multiple of num_attention_heads; download the model again"
        )
    return section


def _whole(value: object, name: str, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{where}: '{name}' must be a whole number above 0, got {value!r}; download the model again")
    return value


def _tower(section: Mapping[str, Any]) -> dict[str, Any]:
    width, inner = section["hidden_size"], section["intermediate_size"]
    ratio = inner / width
    if int(width * ratio) < inner:  # open_clip rounds down
        ratio = math.nextafter(ratio, math.inf)
    tower = {"width": width, "layers": section["num_hidden_layers"], "mlp_ratio": ratio}
    return tower if section["layer_norm_eps"] == 1e-5 else tower | {"norm_kwargs": {"eps": section["layer_norm_eps"]}}


def _preprocessing(settings: Mapping[str, Any], image_size: int, where: str) -> dict[str, Any]:
    settings = {key: value for key, value in settings.items() if value is not None}
    skipped = [step for step in ("do_resize", "do_rescale", "do_normalize") if not settings.get(step, True)]
    resample = settings.get("resample", 3)
    edge, squash = _resize(settings.get("size", image_size))
    crop, _ = _resize(settings.get("crop_size", image_size)) if settings.get("do_center_crop", True) else (edge, squash)
    if skipped or resample not in list(_RESAMPLE) or not edge == crop == image_size:
        got = f"size {settings.get('size')}, crop_size {settings.get('crop_size')}, resample {resample}"
        got += "".join(f", {step} false" for step in skipped)
        expected = f"a bicubic or bilinear resize and crop to {image_size} pixels, then normalization"
        raise UnsupportedError(f"{where}: the preprocessing must be {expected}, got {got}; use another model")
    mode = "squash" if squash else "shortest"
    normalization = {key: settings[f"image_{key}"] for key in ("mean", "std") if f"image_{key}" in settings}
    return {"size": image_size, "interpolation": _RESAMPLE[resample], "resize_mode": mode, **normalization}


def _resize(size: object) -> tuple[object, bool]:
    """Edge in pixels, and whether the photo is squashed to a square instead of keeping its proportions."""
    if not isinstance(size, Mapping):
        return size, False
    if "shortest_edge" in size:
        return size["shortest_edge"], False
    return size.get("height") if size.get("height") == size.get("width") else None, True
