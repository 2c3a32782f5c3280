"""Models in the transformers CLIP layout (`config.json`, `model.safetensors`), turned into open_clip's."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fashion_retrieval.errors import ConfigError, UnsupportedError

_TEXT_DEFAULTS = {
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "vocab_size": 49408,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "eos_token_id": 49407,
}
_VISION_DEFAULTS = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 32,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}
_VOCABULARY = 49408
_END_OF_TEXT = (49407, 2)  # 2 stands in files written before transformers corrected it; pooling is the same
_RESAMPLE = {2: "bilinear", 3: "bicubic"}

_RENAMED = {
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.weight": "ln_final.weight",
    "text_model.final_layer_norm.bias": "ln_final.bias",
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.pre_layrnorm.weight": "visual.ln_pre.weight",
    "vision_model.pre_layrnorm.bias": "visual.ln_pre.bias",
    "vision_model.post_layernorm.weight": "visual.ln_post.weight",
    "vision_model.post_layernorm.bias": "visual.ln_post.bias",
}
_TRANSPOSED = {"text_projection.weight": "text_projection", "visual_projection.weight": "visual.proj"}
_DROPPED = {"text_model.embeddings.position_ids", "vision_model.embeddings.position_ids"}
_LAYER = re.compile(r"(text|vision)_model\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")
_LAYER_PARTS = {
    "self_attn.out_proj": "attn.out_proj",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}


def open_clip_config(
    config: Mapping[str, Any], preprocessor: Mapping[str, Any] | None, where: str
) -> dict[str, dict[str, Any]]:
    """The `open_clip_config.json` of a transformers CLIP model.

    Args:
        config: Its parsed `config.json`.
        preprocessor: Its parsed `preprocessor_config.json`; None is CLIP's usual preprocessing.
        where: The folder, named in errors.

    Raises:
        ConfigError: A field that is no number above 0.
        UnsupportedError: Another kind of model, vocabulary, activation or preprocessing.
    """
    if config.get("model_type") != "clip":
        raise UnsupportedError(
            f"{where} must hold a model of type 'clip', got {config.get('model_type')!r}; "
            "use a repository in the open_clip layout (open_clip_config.json, open_clip_model.safetensors)"
        )
    text = _section(config, "text_config", _TEXT_DEFAULTS, where)
    vision = _section(config, "vision_config", _VISION_DEFAULTS, where)
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
        "vision_cfg": _tower(vision)
        | {
            "image_size": vision["image_size"],
            "patch_size": vision["patch_size"],
            "head_width": vision["hidden_size"] // vision["num_attention_heads"],
        },
        "text_cfg": _tower(text)
        | {
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
        if name in _TRANSPOSED:
            converted[_TRANSPOSED[name]] = tensor.T
        elif layer is None:
            if name not in _DROPPED:
                converted[_RENAMED.get(name, name)] = tensor
        else:
            tower, index, part, kind = layer.groups()
            prefix = f"{'visual.' if tower == 'vision' else ''}transformer.resblocks.{index}"
            if part in _LAYER_PARTS:
                converted[f"{prefix}.{_LAYER_PARTS[part]}.{kind}"] = tensor
            else:
                attention.setdefault(f"{prefix}.attn.in_proj_{kind}", {})[part] = tensor
    for name, parts in attention.items():
        ordered = [parts[key] for key in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj") if key in parts]
        converted[name] = torch.cat(ordered) if ordered else next(iter(parts.values()))
    return converted


def _section(config: Mapping[str, Any], key: str, defaults: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A tower's settings; as in transformers, an older file's `text_config_dict` stands above its `text_config`."""
    older = config.get(f"{key}_dict")
    given = config.get(key, {}) if older is None else older
    if not isinstance(given, Mapping):
        raise ConfigError(f"{where}: '{key}' must be an object, got {type(given).__name__}; download the model again")
    section = {name: given.get(name, default) for name, default in defaults.items()}
    for name, default in defaults.items():
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
    preprocess = {
        "size": image_size,
        "interpolation": _RESAMPLE[resample],
        "resize_mode": "squash" if squash else "shortest",
    }
    named = {"image_mean": "mean", "image_std": "std"}
    return preprocess | {named[key]: settings[key] for key in named if key in settings}


def _resize(size: object) -> tuple[object, bool]:
    """Edge in pixels, and whether the photo is squashed to a square instead of keeping its proportions."""
    if not isinstance(size, Mapping):
        return size, False
    if "shortest_edge" in size:
        return size["shortest_edge"], False
    return size.get("height") if size.get("height") == size.get("width") else None, True
