"""The dual encoder: images and texts in one embedding space (RaF-CLIP, or any open_clip model)."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cached_property, partial
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any

import open_clip
import torch
from open_clip.model import CLIP, CustomTextCLIP
from open_clip.timm_model import TimmModel
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer
from open_clip.transform import PreprocessCfg, merge_preprocess_dict
from open_clip.transformer import TextTransformer, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional

from fashion_retrieval._utils.files import check_downloaded
from fashion_retrieval.config import ENCODER_CONFIG_NAME
from fashion_retrieval.errors import ConfigError, FashionRetrievalError, MissingExtraError, UnsupportedError
from fashion_retrieval.images.inputs import ImageInput, called, read_content
from fashion_retrieval.images.load import decode
from fashion_retrieval.images.preprocess import RGB, Preprocessing
from fashion_retrieval.models.inference_copy import for_inference, is_convolutional
from fashion_retrieval.models.open_clip_spelling import current_config, text_tower_folder
from fashion_retrieval.models.weights import weights_digest

_CONVOLVED = 8
"""Photos that go through a convolutional tower at a time: what its layers pass on stays in the processor's cache."""

_FEW = 200
"""A tokenizer of fewer words is looked at: it may have none but marks such as the end of a text."""

_TOKENIZING = Lock()
"""Tokenizers of transformers raise where two threads use one at once."""


class Encoder(nn.Module):
    """An open_clip model with its tokenizer and its one preprocessing path.

    Shape legend: b batch, s tokens, d embedding width, h and w the input size of the image tower.
    """

    backend = "torch"  # or another runtime with the precision of its graphs, "openvino int8"

    def __init__(
        self,
        *,
        clip: CLIP | CustomTextCLIP,
        tokenizer: Callable[[list[str]], Tensor],
        preprocess: PreprocessCfg,
        config: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.clip = clip
        self.tokenizer = tokenizer
        self.config = config
        self.preprocess_config = preprocess
        self.preprocessing = _preprocessing(preprocess)
        self._source: Encoder | None = None
        self._dtype = torch.float32
        self._convolutional = is_convolutional(clip.visual)

    def for_inference(self, device: torch.device, dtype: torch.dtype) -> Encoder:
        """A copy that computes in `dtype` on `device`, faster than this one and for inference only.

        It takes and gives float32 too, and has the same fingerprint. In float32 its preprocessing is exact.
        """
        ready, clip = copy.copy(self), for_inference(self.clip, device, dtype)
        vars(ready).update(_modules={"clip": clip}, _source=self, _dtype=next(clip.visual.parameters()).dtype)
        ready.preprocessing = replace(self.preprocessing, exact=dtype == torch.float32)
        return ready

    @property
    def embedding_dim(self) -> int:
        """Width of the embeddings of both towers."""
        return int(self.config["model_cfg"]["embed_dim"])

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the image tower's input, in pixels."""
        _, height, width = self.preprocess_config.input_size
        return int(height), int(width)

    @property
    def logit_scale(self) -> float:
        """The learned factor on the cosine (CLIP's inverse temperature)."""
        return math.exp(self.clip.logit_scale.item())

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of weights, architecture and preprocessing: equal fingerprints give equal embeddings."""
        if self._source is not None:
            return self._source.fingerprint
        return self.stored_fingerprint(torch.float32)

    def stored_fingerprint(self, dtype: torch.dtype) -> str:
        """The fingerprint of this encoder once its weights were stored in a type and loaded again."""
        architecture = json.dumps(self.config, sort_keys=True).encode()
        return weights_digest(self.clip, architecture, stored_as=dtype)

    def preprocess(self, image: RGB) -> Tensor:
        """RGB photo or part of one -> (3, h, w) float32, normalized as the image tower expects."""
        return self.preprocessing(image)

    def pixels(self, image: ImageInput, *, max_pixels: int | None = None) -> Tensor:
        """`preprocess` of anything that is a photo, from the bytes of its file: (3, h, w) float32."""
        return self.preprocess(decode(read_content(image), called(image), max_pixels=max_pixels))

    @property
    def _causal_tower(self) -> CLIP | TextTransformer | None:
        """The text tower, where padding after the end-of-text token can't change an embedding; else None."""
        tower = getattr(self.clip, "text", self.clip)
        pool = getattr(tower, "pool_type", getattr(tower, "text_pool_type", None))
        plain = getattr(tower, "cls_emb", None) is None and getattr(tower, "attn_mask", None) is not None
        return tower if plain and pool == "argmax" else None

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Texts -> (b, s) int64, cut after the longest text where that changes nothing.

        With a causal mask and pooling at the end-of-text token padding is never looked at, so a short prompt costs a
        fraction of the full context.
        """
        with _TOKENIZING:
            tokens = self.tokenizer(list(texts))
        return tokens if self._causal_tower is None else tokens[:, : int(tokens.argmax(dim=1).max()) + 1]

    def encode_image(self, pixels: Tensor) -> Tensor:
        """(b, 3, h, w) float -> (b, d) float32, L2-normalized."""
        parts = [self.clip.encode_image(part).float() for part in self._parts(pixels)]
        return functional.normalize(torch.cat(parts), dim=-1)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """(b, s) int64 -> (b, d) float32, L2-normalized."""
        tower = self._causal_tower
        features = self.clip.encode_text(tokens) if tower is None else _text_states(tower, tokens, pooled=True)
        return functional.normalize(features.float(), dim=-1)

    def image_tokens(self, pixels: Tensor) -> Tensor:
        """(b, 3, h, w) float -> (b, 1 + k, d) float32: the pooled embedding, then one token a patch or map cell.

        All are projected into the embedding space, none is normalized; the first one, normalized, is what
        `encode_image` gives. A tower that pools by attention, whose cells have no place in that space, is unsupported.
        """
        states = [_image_states(self.clip.visual, part) for part in self._parts(pixels)]
        return torch.cat([torch.cat([pooled[:, None], cells], dim=1).float() for cells, pooled in states])

    def text_tokens(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """(b, s) int64 -> (b, s, d) float32 in the embedding space, not normalized, and (b,) int64, each text's length.

        A text ends with its end-of-text token, whose row, normalized, is what `encode_text` gives; rows behind it are
        padding. A text tower that does not read causally up to such a token (SigLIP) is unsupported.
        """
        tower = self._causal_tower
        if tower is None:
            raise UnsupportedError("token features need a text tower that pools at its end-of-text token; use a CLIP")
        return _text_states(tower, tokens, pooled=False).float(), tokens.argmax(dim=-1) + 1

    def _parts(self, pixels: Tensor) -> Sequence[Tensor]:
        """(b, 3, h, w) as the image tower is fastest given it."""
        if self._source is None:
            return [pixels]
        if not self._convolutional:
            return [pixels.to(self._dtype)]
        pixels = pixels.to(self._dtype, memory_format=torch.channels_last)
        return torch.split(pixels, _CONVOLVED) if pixels.device.type == "cpu" else [pixels]


def _preprocessing(config: PreprocessCfg) -> Preprocessing:
    height, width = (int(side) for side in config.input_size[1:])
    return Preprocessing(
        size=(height, width),
        mean=_per_channel(config.mean),
        std=_per_channel(config.std),
        interpolation="bicubic" if config.interpolation == "random" else config.interpolation,
        resize_mode=config.resize_mode or "shortest",
        fill=config.fill_color,
    )


def _per_channel(levels: float | Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = [levels] * 3 if isinstance(levels, int | float) else levels
    return red, green, blue


def _image_states(visual: nn.Module, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """(b, 3, h, w) -> (b, k, d) cells and (b, d) pooled, both projected."""
    if isinstance(visual, VisionTransformer) and visual.attn_pool is None:
        states = visual.transformer(visual._embeds(pixels))
        pooled, cells = visual._pool(states)
        return (cells, pooled) if visual.proj is None else (cells @ visual.proj, pooled @ visual.proj)
    if isinstance(visual, TimmModel) and "pool" not in visual.head._modules and not visual.trunk.num_classes:
        states = visual.trunk.forward_features(pixels)
        cells = states.flatten(2).mT if states.ndim == 4 else states
        return visual.head(cells), visual.head(visual.trunk.forward_head(states))
    raise UnsupportedError(
        f"token features need a vision transformer or a CNN with average pooling, got {type(visual).__name__}; "
        "use another model"
    )


def _text_states(tower: CLIP | TextTransformer, tokens: Tensor, *, pooled: bool) -> Tensor:
    """open_clip's text forward pass for tokens cut to s: (b, s) int64 -> (b, d) pooled or (b, s, d), projected."""
    length = tokens.shape[1]
    dtype = tower.transformer.get_cast_dtype()
    embedded = tower.token_embedding(tokens).to(dtype) + tower.positional_embedding[:length].to(dtype)
    states: Tensor = tower.ln_final(tower.transformer(embedded, attn_mask=tower.attn_mask[:length, :length]))
    if pooled:
        states = states[torch.arange(len(tokens), device=tokens.device), tokens.argmax(dim=-1)]
    projection = tower.text_projection
    if projection is None:
        return states
    projected: Tensor = projection(states) if isinstance(projection, nn.Linear) else states @ projection
    return projected


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
        settings = merge_preprocess_dict(PreprocessCfg(), config.get("preprocess_cfg", {}))
        preprocess = PreprocessCfg(**settings | {"size": clip.visual.image_size})
        tokenizer = _build_tokenizer(config["model_cfg"]["text_cfg"], folder)
        encoder = Encoder(clip=clip, tokenizer=tokenizer, preprocess=preprocess, config=config)
        encoder.preprocess(torch.zeros(2, 2, 3, dtype=torch.uint8))
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
