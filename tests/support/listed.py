"""Small random models in repositories with the files of those that `list_models()` names as "layout tested"."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import transformers
from safetensors.torch import load_file, save_file

from fashion_retrieval.checkpoint import transformers_clip
from tests.support import open_clip_families
from tests.support.open_clip_families import VIT, family_folder, rough, shrink_trunks, small, small_tokenizer
from tests.support.tiny import tree

_MODA = [f"HopitAI/moda-fashion-{name}" for name in ("distilled", "matryoshka", "deepfashion2")]
ARCHITECTURES = {
    "laion/CLIP-ViT-B-32-laion2B-s34B-b79K": "ViT-B-32",
    "Marqo/marqo-fashionCLIP": "ViT-B-16",
    **dict.fromkeys(["Marqo/marqo-fashionSigLIP", *_MODA], "ViT-B-16-SigLIP"),
    "timm/ViT-B-16-SigLIP2": "ViT-B-16-SigLIP2",
    "timm/PE-Core-B-16": "PE-Core-B-16",
    "timm/MobileCLIP2-S2-OpenCLIP": "MobileCLIP2-S2",
    "patrickjohncyh/fashion-clip": "ViT-B-32",
    "srpone/zooclaw-fashionsiglip2": "ViT-B-16-SigLIP2-384",
}
"""Id -> open_clip's name of the architecture; the last two are in transformers' layout."""
_TRUNKS: dict[str, dict[str, Any]] = {
    "vit_base_patch16_siglip_224": VIT | {"img_size": 64},
    "vit_base_patch16_siglip_384": VIT | {"mlp_ratio": 1.5},
    "vit_pe_core_base_patch16_224": VIT | {"img_size": 64},
    "fastvit_mci2": {"layers": (1, 2, 1, 1), "embed_dims": (8, 16, 32, 64)},
}
_TOWER = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
_LEFT = dict.fromkeys(("open_clip_pytorch_model.bin", "onnx/model.onnx", ".gitattributes"), b"never downloaded")


def shrink(patch: pytest.MonkeyPatch) -> None:
    """Build the towers small, also those whose sizes transformers' config names."""
    for name, sizes in _TRUNKS.items():
        patch.setitem(open_clip_families.SMALL_TRUNKS, name, sizes)
    patch.setitem(transformers_clip._LAYOUTS["siglip"]["trunks"], "base", [32, 48, 2, 2])
    shrink_trunks(patch)


def repository(model_id: str, folder: Path) -> dict[str, bytes]:
    """Write a model like that of a listed id, but small and random; the files of its repository, by path."""
    build = {"patrickjohncyh/fashion-clip": _fashion_clip, "srpone/zooclaw-fashionsiglip2": _zooclaw}
    build.get(model_id, partial(_open_clip, model_id))(folder)
    return tree(folder) | _LEFT | {"README.md": b"# A model\n"}


def _open_clip(model_id: str, folder: Path) -> None:
    family_folder(folder, small(ARCHITECTURES[model_id]))
    (folder / "open_clip_pytorch_model.bin").unlink(missing_ok=True)
    weights = folder / "open_clip_model.safetensors"
    if model_id in _MODA:  # their scale and bias are lists of one number
        state = {name: value.reshape(value.shape or (1,)) for name, value in load_file(weights).items()}
        save_file(state, weights)
    if model_id.startswith("Marqo/"):  # the same model again, for transformers, with its own code
        told = {"auto_map": {"AutoModel": "marqo.Model"}, "model_type": "siglip" if "Sig" in model_id else "clip"}
        (folder / "config.json").write_text(json.dumps(told | {"open_clip_model_name": f"hf-hub:{model_id}"}))
        (folder / "model.safetensors").write_bytes(weights.read_bytes())
        (folder / "marqo.py").write_text("raise SystemExit('ran')")


def _fashion_clip(folder: Path) -> None:
    vision = _TOWER | {"image_size": 32, "patch_size": 8}
    texts = _TOWER | {"vocab_size": 49408, "eos_token_id": 2}  # as configs of that time have it
    config = transformers.CLIPConfig(text_config=texts, vision_config=vision, projection_dim=32)
    rough(partial(transformers.CLIPModel, config)).save_pretrained(folder)
    for name in ("tokenizer.json", "vocab.json", "special_tokens_map.json", "tokenizer_config.json"):
        (folder / name).write_text("{}")  # CLIP's own tokenizer, which open_clip brings
    (folder / "pytorch_model.bin").write_bytes(b"never downloaded")


def _zooclaw(folder: Path) -> None:
    vision = _TOWER | {"image_size": 384, "patch_size": 16}
    texts = _TOWER | {"vocab_size": 64, "max_position_embeddings": 16, "projection_size": 32}
    config = transformers.SiglipConfig(text_config=texts, vision_config=vision)
    rough(partial(transformers.SiglipModel, config)).save_pretrained(folder)
    tokenizer = small_tokenizer()
    tokenizer.model_max_length = 16
    tokenizer.save_pretrained(folder)
