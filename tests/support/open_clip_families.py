"""Every family of open_clip's architectures at its smallest, written in open_clip's own layout."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from open_clip import timm_model
from open_clip.coca_model import CoCa
from open_clip.factory import get_model_config
from open_clip.model import CLIP, CustomTextCLIP
from open_clip.push_to_hf_hub import save_for_hf
from open_clip.tokenizer import HFTokenizer
from timm.models.vitamin import VitCfg, VitConvCfg
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn

from fashion_retrieval.models.weights import NoRandomWeights

VIT: dict[str, Any] = {"embed_dim": 32, "depth": 2, "num_heads": 2}
_CONVOLVED = VitConvCfg(norm_layer="layernorm2d", norm_eps=1e-6)
SMALL_TRUNKS: dict[str, dict[str, Any]] = {
    "eva_giant_patch14_224": VIT | {"img_size": 56},
    "eva02_base_patch16_clip_224": VIT | {"img_size": 64},
    "vit_base_mci_224": {"depth": 1},
    "vit_base_patch16_siglip_224": VIT | {"img_size": 64},
    "vit_base_patch16_siglip_384": VIT | {"img_size": 64},
    "vit_so400m_patch16_siglip_256": VIT | {"img_size": 64},
    "vit_pe_core_tiny_patch16_384": VIT | {"img_size": 64},
    "vit_medium_patch16_gap_256": VIT | {"img_size": 64},
    "vit_relpos_medium_patch16_cls_224": VIT | {"img_size": 64},
    "fastvit_mci0": {"layers": (1, 1, 1, 1), "embed_dims": (8, 16, 32, 64)},
    "fastvit_mci1": {"layers": (1, 2, 1, 1), "embed_dims": (8, 16, 32, 64)},
    "fastvit_mci3": {"layers": (1, 1, 1, 1, 1), "embed_dims": (8, 16, 32, 64, 128)},
    "vitamin_small_224": VIT | {"img_size": 64, "embed_cfg": VitCfg((8, 16, 32), (1, 1, 1), 8, _CONVOLVED, "1d")},
    "convnext_tiny": {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)},
    "swin_base_patch4_window7_224": {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1)},
}
"""timm's name of an image tower -> what makes it small, in timm's own arguments."""
_SIDES = {"swin_base_patch4_window7_224": 224, "vit_base_mci_224": 224}
_WORDS = ["<s>", "<pad>", "</s>", "<unk>", "a", "photo", "of", "red", "dress", "jeans", "long", "navy", "coat", "very"]
TEXTS = ["a photo of a red dress", "jeans", "a long navy coat with very shiny golden buttons, very very very long ..."]


def shrink_trunks(patch: pytest.MonkeyPatch) -> None:
    """Build timm's towers small, whoever asks for them."""
    create = timm_model.timm.create_model

    def smaller(name: str, **settings: Any) -> nn.Module:
        built: nn.Module = create(name, **settings | SMALL_TRUNKS.get(name, {}))
        return built

    patch.setattr(timm_model.timm, "create_model", smaller)


def small(name: str) -> dict[str, Any]:
    """open_clip's config of an architecture with few and narrow layers."""
    config: dict[str, Any] = copy.deepcopy(get_model_config(name))
    vision, text = config["vision_cfg"], config["text_cfg"]
    config["embed_dim"] = 32  # timm's towers without a projection are as wide as the embeddings
    if "timm_model_name" in vision:
        trunk = vision["timm_model_name"]
        vision["image_size"] = SMALL_TRUNKS[trunk].get("img_size", _SIDES.get(trunk, 64))
        vision["timm_model_pretrained"] = False
    elif isinstance(vision["layers"], list):
        vision |= {"layers": [1, 1, 1, 1], "width": 8, "image_size": 64}
    else:
        vision |= {"layers": 2, "width": 32, "head_width": 16, "image_size": 3 * vision["patch_size"]}
    if vision.get("attentional_pool"):
        vision["attn_pooler_heads"] = 2
    if not text.get("hf_model_name"):
        text |= {"width": 32, "heads": 2, "layers": 2}
    if text.get("hf_tokenizer_name"):
        text |= {"vocab_size": 64, "context_length": 16}
    if "multimodal_cfg" in config:
        config["multimodal_cfg"] |= {"width": 32, "heads": 2, "layers": 1, "attn_pooler_heads": 2}
    return config


def small_text_tower(name: str) -> transformers.PreTrainedConfig:
    """transformers' config of the kind of text tower that a name of `hf_model_name` says, at its smallest."""
    sizes: dict[str, Any] = {
        "vocab_size": 64,
        "d_model": 32,
        "hidden_size": 32,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
    }
    bert = {key: value for key, value in sizes.items() if key != "d_model"} | {"intermediate_size": 48}
    if "xlm-roberta" in name:
        return transformers.XLMRobertaConfig(**bert, max_position_embeddings=99, type_vocab_size=1)
    if "roberta" in name:
        return transformers.RobertaConfig(**bert, max_position_embeddings=99, type_vocab_size=1)
    if "mt5" in name:
        return transformers.MT5Config(vocab_size=64, d_model=32, d_kv=16, d_ff=48, num_layers=2, num_heads=2)
    towers: dict[str, Any] = {
        f"{tower}_{key}": 2 for tower in ("encoder", "decoder") for key in ("layers", "attention_heads")
    }
    return transformers.M2M100Config(
        vocab_size=64, d_model=32, encoder_ffn_dim=48, decoder_ffn_dim=48, max_position_embeddings=99, **towers
    )


def small_tokenizer() -> transformers.PreTrainedTokenizerFast:
    """A tokenizer of few words, as transformers saves it: <s> 0, <pad> 1, </s> 2."""
    words = Tokenizer(models.WordLevel({word: place for place, word in enumerate(_WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    names = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "sep_token": "</s>"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=words, **names)


class _NoFiles:
    """CLIP's own tokenizer, which has no files."""

    def save_pretrained(self, folder: Path) -> None:
        pass


def rough(build: Callable[[], nn.Module], *, seed: int = 1, gain: float = 1.5) -> nn.Module:
    """A module with random weights under which every layer counts, in eval mode.

    Usual first weights leave biases at 0, activations almost linear and scales of layers tiny. A deep tower without
    norms over channels overflows unless the gain is low.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        with NoRandomWeights():
            model = build()
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if name.endswith("running_var"):
                value.uniform_(0.5, 1.5)
            elif value.ndim > 1 and isinstance(value, nn.Parameter):
                value.normal_(std=gain * value[0].numel() ** -0.5)
            elif name.endswith("running_mean") or isinstance(value, nn.Parameter):
                value.normal_(mean=float(name.endswith("weight")), std=0.3)
    return model.eval()


def open_clip_model(
    folder: Path,
    config: dict[str, Any],
    text_tower: Callable[[str], transformers.PreTrainedConfig] = small_text_tower,
) -> CLIP | CustomTextCLIP | CoCa:
    """The model of an open_clip config; the settings of a text tower of transformers are written into the folder."""
    text = config["text_cfg"]
    if text.get("hf_tokenizer_name"):
        small_tokenizer().save_pretrained(folder)
    if text.get("hf_model_name"):
        text_tower(text["hf_model_name"]).save_pretrained(folder)
        text["hf_model_name"] = str(folder)
        text["hf_model_pretrained"] = False
    settings = copy.deepcopy(config)
    kind = CustomTextCLIP if settings.pop("custom_text", False) or text.get("hf_model_name") else CLIP
    return (CoCa if "multimodal_cfg" in config else kind)(**settings)


def family_folder(
    folder: Path,
    config: dict[str, Any],
    text_tower: Callable[[str], transformers.PreTrainedConfig] = small_text_tower,
    *,
    gain: float = 1.5,
) -> CLIP | CustomTextCLIP | CoCa:
    """Write a random model of an open_clip config with open_clip's own writer, tokenizer files too, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    model = rough(partial(open_clip_model, folder, config, text_tower), gain=gain)
    model.visual.image_mean, model.visual.image_std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    tokenizer = HFTokenizer(str(folder)) if config["text_cfg"].get("hf_tokenizer_name") else _NoFiles()
    save_for_hf(model, tokenizer, config, str(folder), safe_serialization=True)
    return model
