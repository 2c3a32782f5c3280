"""Models in the layout of transformers (`config.json`, `model.safetensors`): CLIP's and SigLIP's, made open_clip's.

An image tower of SigLIP is timm's, and `act_kwargs` in its settings says what open_clip leaves out: which GELU.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

import timm
import torch
from torch import Tensor

from fashion_retrieval._utils.files import asset
from fashion_retrieval.errors import ConfigError, UnsupportedError

_LAYOUTS = {name: json.loads(asset(f"transformers/{name}.json")) for name in ("clip", "siglip")}
"""Defaults of both towers' settings, and open_clip's names of tensors by those of transformers."""
_LAYOUT_OF = {"clip": "clip", "metaclip_2": "clip", "siglip": "siglip", "siglip2": "siglip"}
_VOCABULARY = 49408
_END_OF_TEXT = (49407, 2)  # 2 stands in files written before transformers corrected it; pooling is the same
_RESAMPLE = {2: "bilinear", 3: "bicubic"}
_GELU = {"act_kwargs": {"approximate": "tanh"}}

_DROPPED = {"text_model.embeddings.position_ids", "vision_model.embeddings.position_ids"}
_LAYER = re.compile(r"(text|vision)_model\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")


def open_clip_config(
    config: Mapping[str, Any], preprocessor: Mapping[str, Any] | None, where: str
) -> dict[str, dict[str, Any]]:
    """The `open_clip_config.json` for a parsed `config.json` and `preprocessor_config.json` (None: the usual one).

    Errors name `where`, the folder.
    """
    kind = config.get("model_type")
    layout = _LAYOUT_OF.get(str(kind))
    if layout is None:
        raise UnsupportedError(
            f"{where} must hold a model of type {', '.join(map(repr, _LAYOUT_OF))}, got {kind!r}; "
            "use a repository in the open_clip layout (open_clip_config.json, open_clip_model.safetensors)"
        )
    text = _section(config, "text_config", _LAYOUTS[layout], where)
    vision = _section(config, "vision_config", _LAYOUTS[layout], where)
    settings = {key: value for key, value in (preprocessor or {}).items() if value is not None}
    if layout == "clip":
        model = _clip(config, text, vision, where)
    else:
        if kind == "siglip2":  # photos of any proportions; here they are squashed to the square it was made from
            patches = _whole((config.get("vision_config") or {}).get("num_patches", 256), "num_patches", where)
            vision["image_size"] = math.isqrt(patches) * vision["patch_size"]
            settings = {key: value for key, value in settings.items() if key != "size"}
        model = _siglip(config, text, vision, where)
        square = {"height": vision["image_size"], "width": vision["image_size"]}
        usual = {"size": square, "do_center_crop": False, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
        settings = usual | ({"resample": 2} if kind == "siglip2" else {}) | settings
    return {"model_cfg": model, "preprocess_cfg": _preprocessing(settings, vision["image_size"], where)}


def _clip(config: Mapping[str, Any], text: dict[str, Any], vision: dict[str, Any], where: str) -> dict[str, Any]:
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
        "text_cfg": _text_tower(text),
    }
    if activations == {"quick_gelu"}:
        model["quick_gelu"] = True
    end, of_clip = text["eos_token_id"], config["model_type"] == "clip"
    if not (of_clip and text["vocab_size"] == _VOCABULARY and end in _END_OF_TEXT):
        model["text_cfg"]["hf_tokenizer_name"] = "its own"
        if not (of_clip and end == 2):  # transformers takes this one of CLIP for the highest id
            model["text_cfg"] |= {"pool_type": "eos", "eos_id": end}
    return model


def _siglip(config: Mapping[str, Any], text: dict[str, Any], vision: dict[str, Any], where: str) -> dict[str, Any]:
    sizes = [vision[key] for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")]
    size = next((name for name, known in _LAYOUTS["siglip"]["trunks"].items() if known == sizes), "")
    trunk = f"vit_{size}_patch{vision['patch_size']}_siglip_{vision['image_size']}"
    head = (config.get("vision_config") or {}).get("vision_use_head", True)
    if not (size and timm.is_model(trunk) and head and vision["layer_norm_eps"] == 1e-6):
        got = f"{sizes} at {vision['image_size']} pixels with patches of {vision['patch_size']}"
        raise UnsupportedError(f"{where} must have an image tower that timm {timm.__version__} knows, got {got}")
    if not vision["hidden_act"] == text["hidden_act"] == "gelu_pytorch_tanh":
        got = f"{vision['hidden_act']}, {text['hidden_act']}"
        raise UnsupportedError(f"{where} must use 'gelu_pytorch_tanh' in both towers, got {got}; use another model")
    tower: dict[str, Any] = {
        "no_causal_mask": True,
        "proj_bias": True,
        "pool_type": "last",
        "hf_tokenizer_name": "its own",
    }
    tower |= {"tokenizer_kwargs": {"clean": "lower"}}  # as in training; transformers 5 leaves some texts as they are
    timms = {"timm_model_name": trunk, "timm_model_pretrained": False, "timm_pool": "map", "timm_proj": "none"}
    return {
        "embed_dim": vision["hidden_size"],
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": timms | {"image_size": vision["image_size"]} | _GELU,
        "text_cfg": _text_tower(text) | tower | _GELU,
    }


def open_clip_weights(state: Mapping[str, Tensor], model_type: str = "clip") -> dict[str, Tensor]:
    """Rename a transformers state dict; names it does not know stay, so that strict loading reports them."""
    layout = _LAYOUTS[_LAYOUT_OF[model_type]]
    converted: dict[str, Tensor] = {}
    attention: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        layer = _LAYER.fullmatch(name)
        if name in layout["transposed"]:
            converted[layout["transposed"][name]] = tensor.T
        elif layer is None:
            if name not in _DROPPED:
                converted[layout["renamed"].get(name, name)] = tensor
        else:
            tower, index, part, kind = layer.groups()
            names = layout["towers"][tower]
            prefix = names["blocks"] + index
            if part in names["layers"]:
                converted[f"{prefix}.{names['layers'][part]}.{kind}"] = tensor
            else:
                attention.setdefault(f"{prefix}.{names['attention']}{kind}", {})[part] = tensor
    for name, parts in attention.items():
        ordered = [parts[key] for key in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj") if key in parts]
        converted[name] = torch.cat(ordered) if ordered else next(iter(parts.values()))
    return _as_timms(converted) if layout is _LAYOUTS["siglip"] else converted


def _as_timms(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """SigLIP's renamed tensors in timm's shapes."""
    trunk = "visual.trunk."
    for kind in ("weight", "bias"):
        joined = state.pop(f"vision_model.head.attention.in_proj_{kind}", None)
        if joined is not None:
            width = len(joined) // 3
            state[f"{trunk}attn_pool.q.{kind}"], state[f"{trunk}attn_pool.kv.{kind}"] = joined[:width], joined[width:]
    if (positions := state.get(f"{trunk}pos_embed")) is not None and positions.ndim == 2:
        state[f"{trunk}pos_embed"] = positions[None]
    patches = state.get(f"{trunk}patch_embed.proj.weight")
    if patches is not None and patches.ndim == 2:  # SigLIP 2's, (d, h * w * 3)
        side = math.isqrt(patches.shape[1] // 3)
        state[f"{trunk}patch_embed.proj.weight"] = patches.reshape(-1, side, side, 3).permute(0, 3, 1, 2)
    return state


def _section(config: Mapping[str, Any], key: str, layout: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A tower's settings; as in transformers, an older file's `text_config_dict` stands above its `text_config`."""
    older = config.get(f"{key}_dict")
    given = config.get(key, {}) if older is None else older
    if not isinstance(given, Mapping):
        raise ConfigError(f"{where}: '{key}' must be an object, got {type(given).__name__}; download the model again")
    section = {name: given.get(name, default) for name, default in layout[key].items()}
    for name, default in layout[key].items():
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


def _text_tower(section: Mapping[str, Any]) -> dict[str, Any]:
    sizes = {"context_length": "max_position_embeddings", "vocab_size": "vocab_size", "heads": "num_attention_heads"}
    return _tower(section) | {name: section[given] for name, given in sizes.items()}


def _preprocessing(settings: Mapping[str, Any], image_size: int, where: str) -> dict[str, Any]:
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
