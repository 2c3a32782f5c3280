"""Any encoder that open_clip can build."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
from open_clip.model import CLIP, CustomTextCLIP
from open_clip.timm_model import TimmModel
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer
from torch import Tensor, nn

from fashion_retrieval._utils.files import check_downloaded
from fashion_retrieval.config import ENCODER_CONFIG_NAME
from fashion_retrieval.errors import ConfigError, FashionRetrievalError, MissingExtraError
from fashion_retrieval.models.encoder import Encoder, PhotoSettings
from fashion_retrieval.models.open_clip_spelling import current_config, text_tower_folder

_FEW = 200
"""A tokenizer of fewer words is looked at: it may have none but marks such as the end of a text."""


def build_encoder(config: Mapping[str, Any], folder: Path) -> Encoder:
    """Build the architecture of a parsed `open_clip_config.json`, with random weights; nothing is downloaded or loaded.

    A tokenizer that needs files of its own is read from the folder.
    """
    config = current_config(config)
    architecture = copy.deepcopy(config["model_cfg"])
    text = architecture["text_cfg"]
    custom = architecture.pop("custom_text", False) or "hf_model_name" in text
    try:
        architecture["vision_cfg"]["timm_model_pretrained"] = False
        with text_tower_folder(name, folder) if (name := text.get("hf_model_name")) else nullcontext() as tower:
            if name:
                text |= {"hf_model_name": tower, "hf_model_pretrained": False}
            clip = (CustomTextCLIP if custom else CLIP)(
                **architecture
            ).float()  # transformers' towers in their files' type
        if isinstance(clip.visual, TimmModel) and (which := architecture["vision_cfg"].get("act_kwargs")):
            for layer in clip.visual.modules():  # open_clip leaves timm's towers their exact GELU
                if isinstance(layer, nn.GELU):
                    layer.approximate = which["approximate"]
        preprocess = PhotoSettings.read(config.get("preprocess_cfg") or {}, clip.visual.image_size)
        tokenizer = _build_tokenizer(config["model_cfg"]["text_cfg"], folder)
        encoder = Encoder(clip=clip, tokenizer=tokenizer, preprocess=preprocess, config=config)
        encoder.preprocess(np.zeros((2, 2, 3), np.uint8))
    except FashionRetrievalError:
        raise
    except Exception as error:  # open_clip and timm raise any kind, AssertionError too
        expected = f"a model that open_clip {open_clip.__version__} can build"
        got = f"{type(error).__name__}: {error}"
        raise ConfigError(f"{ENCODER_CONFIG_NAME} must describe {expected}, got {got}") from error
    return encoder


def _build_tokenizer(text: Mapping[str, Any], folder: Path) -> Callable[[list[str]], Tensor]:
    options = {"context_length": text.get("context_length", 77)} | text.get("tokenizer_kwargs", {})
    tokenizer: Callable[[list[str]], Tensor]
    if not text.get("hf_tokenizer_name"):
        ready = options.keys() == {"context_length"}  # another one would unpack CLIP's vocabulary again
        tokenizer = partial(open_clip.tokenize, **options) if ready else SimpleTokenizer(**options)
        return tokenizer
    options |= {"trust_remote_code": False, "local_files_only": True}
    for path in folder.iterdir():
        if path.suffix in (".json", ".model"):
            check_downloaded(path)
    try:
        made: Any = HFTokenizer(str(folder), tokenizer_mode=text.get("tokenizer_mode"), **options)
    except Exception as error:  # transformers and tokenizers raise any kind
        raise _unreadable(folder, " ".join(str(error).split())[:160]) from error
    tokenizer, words = made, made.tokenizer
    if len(words) < _FEW and set(words.get_vocab()) <= {*words.all_special_tokens, "▁"}:
        remedy = "download the model again"  # transformers 5 makes one without a word where it finds no vocabulary
        raise ConfigError(f"the tokenizer in {folder} has no words, its vocabulary is missing; {remedy}")
    return tokenizer


def _unreadable(folder: Path, reason: str) -> FashionRetrievalError:
    if find_spec("transformers") is None:
        remedy = "pip install 'fashion-retrieval[hf]'"
        return MissingExtraError(f"the tokenizer of {folder} needs transformers ({reason}); run: {remedy}")
    if find_spec("sentencepiece") is None and any(folder.glob("*.model")):
        remedy = "pip install sentencepiece protobuf"
        return MissingExtraError(f"the tokenizer of {folder} needs sentencepiece ({reason}); run: {remedy}")
    return ConfigError(f"the tokenizer in {folder} can't be read ({reason}); download the model again")
