"""The dual encoder: images and texts in one embedding space (RaF-CLIP, or any open_clip model)."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fashion_retrieval._utils.lazy import lazy_names
from fashion_retrieval.errors import UnsupportedError
from fashion_retrieval.images.inputs import ImageInput, called, read_content
from fashion_retrieval.images.load import decode
from fashion_retrieval.images.preprocess import RGB, Preprocessing
from fashion_retrieval.models.inference_copy import for_inference, is_convolutional
from fashion_retrieval.models.light import ImageTower, LightCLIP, TextTower
from fashion_retrieval.models.tokenizer import ClipTokenizer
from fashion_retrieval.models.weights import weights_digest

if TYPE_CHECKING:
    from open_clip.model import CLIP, CustomTextCLIP
    from open_clip.transformer import TextTransformer

__getattr__ = lazy_names(__name__, {"build_encoder": "models.open_clip_encoder:build_encoder"})  # its home in 0.1

_CONVOLVED = 8
"""Photos that go through a convolutional tower at a time: what its layers pass on stays in the processor's cache."""

_TOKENIZING = Lock()
"""Tokenizers of transformers raise where two threads use one at once."""


@dataclass(frozen=True, slots=True)
class PhotoSettings:
    """open_clip's `preprocess_cfg`, with its defaults."""

    size: int | Sequence[int] = 224
    mode: str = "RGB"
    mean: float | Sequence[float] = (0.48145466, 0.4578275, 0.40821073)
    std: float | Sequence[float] = (0.26862954, 0.26130258, 0.27577711)
    interpolation: str = "bicubic"
    resize_mode: str = "shortest"
    fill_color: int = 0

    @classmethod
    def read(cls, settings: Mapping[str, Any], size: int | Sequence[int]) -> PhotoSettings:
        """From a parsed configuration; what it does not say, or names without being known, is open_clip's default."""
        known = {name: settings[name] for name in cls.__slots__ if settings.get(name) is not None}
        return cls(**known | {"size": size})

    def preprocessing(self) -> Preprocessing:
        """What they describe; a ConfigError for what can't be done."""
        height, width = [self.size] * 2 if isinstance(self.size, int) else self.size
        how: Any = "bicubic" if self.interpolation == "random" else self.interpolation
        mode: Any = self.resize_mode
        return Preprocessing(
            size=(int(height), int(width)),
            mean=_per_channel(self.mean),
            std=_per_channel(self.std),
            interpolation=how,
            resize_mode=mode,
            fill=self.fill_color,
        )


def _per_channel(levels: float | Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = [levels] * 3 if isinstance(levels, int | float) else levels
    return red, green, blue


class Encoder(nn.Module):
    """An open_clip model with its tokenizer and its one preprocessing path.

    Shape legend: b batch, s tokens, d embedding width, h and w the input size of the image tower.
    """

    def __init__(
        self,
        *,
        clip: CLIP | CustomTextCLIP | LightCLIP,
        tokenizer: Callable[[list[str]], Any],
        preprocess: PhotoSettings,
        config: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.clip = clip
        self.tokenizer = tokenizer
        self.config = config
        self.preprocess_config = preprocess
        self.preprocessing = preprocess.preprocessing()
        self._fingerprint_of: Callable[[], str] | None = None  # of a copy for inference: its source's
        self._dtype = torch.float32
        self._convolutional = is_convolutional(clip.visual)

    def for_inference(
        self, device: torch.device, dtype: torch.dtype, *, fingerprint: Callable[[], str] | None = None
    ) -> Encoder:
        """A copy that computes in `dtype` on `device`, faster than this one and for inference only.

        It takes and gives float32 too. In float32 its preprocessing is exact. It asks this encoder for its fingerprint,
        or without keeping this one, `fingerprint`.
        """
        ready, clip = copy.copy(self), for_inference(self.clip, device, dtype)
        of, kind = fingerprint or (lambda: self.fingerprint), next(clip.visual.parameters()).dtype
        vars(ready).update(_modules={"clip": clip}, _fingerprint_of=of, _dtype=kind)
        ready.preprocessing = replace(self.preprocessing, exact=dtype == torch.float32)
        return ready

    @property
    def embedding_dim(self) -> int:
        """Width of the embeddings of both towers."""
        return int(self.config["model_cfg"]["embed_dim"])

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the image tower's input, in pixels."""
        return self.preprocessing.size

    @property
    def logit_scale(self) -> float:
        """The learned factor on the cosine (CLIP's inverse temperature)."""
        return math.exp(self.clip.logit_scale.item())

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of weights, architecture and preprocessing: equal fingerprints give equal embeddings."""
        if self._fingerprint_of is not None:
            return self._fingerprint_of()
        return self.stored_fingerprint(torch.float32)

    def stored_fingerprint(self, dtype: torch.dtype) -> str:
        """The fingerprint of this encoder once its weights were stored in a type and loaded again."""
        architecture = json.dumps(self.config, sort_keys=True).encode()
        return weights_digest(self.clip, architecture, stored_as=dtype)

    def preprocess(self, image: RGB) -> Tensor:
        """RGB photo or part of one -> (3, h, w) float32, normalized as the image tower expects."""
        return torch.from_numpy(self.preprocessing(image))

    def pixels(self, image: ImageInput, *, max_pixels: int | None = None) -> Tensor:
        """`preprocess` of anything that is a photo, from the bytes of its file: (3, h, w) float32."""
        return self.preprocess(decode(read_content(image), called(image), max_pixels=max_pixels))

    @property
    def _causal_tower(self) -> CLIP | TextTransformer | TextTower | None:
        """The text tower, where padding after the end-of-text token can't change an embedding; else None."""
        tower = getattr(self.clip, "text", self.clip)
        pool = getattr(tower, "pool_type", getattr(tower, "text_pool_type", None))
        plain = getattr(tower, "cls_emb", None) is None and getattr(tower, "attn_mask", None) is not None
        return tower if plain and pool == "argmax" else None

    @property
    def is_causal(self) -> bool:
        """Whether what follows the end of a text changes nothing."""
        return self._causal_tower is not None

    @property
    def has_clip_tokenizer(self) -> bool:
        """Whether its tokens are those of CLIP's own tokenizer, in lower case and cut off at the end."""
        text = self.config["model_cfg"]["text_cfg"]
        return not (text.get("hf_tokenizer_name") or text.get("tokenizer_kwargs"))

    @property
    def context_length(self) -> int:
        """How many tokens of a text are read at most."""
        return int(self.config["model_cfg"]["text_cfg"].get("context_length", 77))

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Texts -> (b, s) int64, cut after the longest text where that changes nothing.

        With a causal mask and pooling at the end-of-text token padding is never looked at, so a short prompt costs a
        fraction of the full context.
        """
        with _TOKENIZING:
            tokens = torch.as_tensor(self.tokenizer(list(texts)))
        return tokens if self._causal_tower is None else tokens[:, : int(tokens.argmax(dim=1).max()) + 1]

    def encode_image(self, pixels: Tensor) -> Tensor:
        """(b, 3, h, w) float -> (b, d) float32, L2-normalized."""
        parts = [self.clip.encode_image(part).float() for part in self._parts(pixels)]
        return functional.normalize(torch.cat(parts), dim=-1)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """(b, s) int64 -> (b, d) float32, L2-normalized."""
        tower = self._causal_tower
        whole: Any = self.clip  # the light one has a causal tower
        features: Tensor = whole.encode_text(tokens) if tower is None else _text_states(tower, tokens, pooled=True)
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
        if self._fingerprint_of is None:
            return [pixels]
        if not self._convolutional:
            return [pixels.to(self._dtype)]
        pixels = pixels.to(self._dtype, memory_format=torch.channels_last)
        return torch.split(pixels, _CONVOLVED) if pixels.device.type == "cpu" else [pixels]


def _image_states(visual: nn.Module, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """(b, 3, h, w) -> (b, k, d) cells and (b, d) pooled, both projected."""
    if isinstance(visual, ImageTower):
        maps = visual.trunk.forward_features(pixels)
        return visual.head(maps.flatten(2).mT), visual.head(visual.trunk.forward_head(maps))
    from open_clip.timm_model import TimmModel
    from open_clip.transformer import VisionTransformer

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


def _text_states(tower: CLIP | TextTransformer | TextTower, tokens: Tensor, *, pooled: bool) -> Tensor:
    """open_clip's text forward pass for tokens cut to s: (b, s) int64 -> (b, d) pooled or (b, s, d), projected."""
    length, mask = tokens.shape[1], tower.attn_mask
    assert isinstance(mask, Tensor)  # of a causal tower it is one
    dtype = tower.transformer.get_cast_dtype()
    embedded = tower.token_embedding(tokens).to(dtype) + tower.positional_embedding[:length].to(dtype)
    states: Tensor = tower.ln_final(tower.transformer(embedded, attn_mask=mask[:length, :length]))
    if pooled:
        states = states[torch.arange(len(tokens), device=tokens.device), tokens.argmax(dim=-1)]
    projection = tower.text_projection
    if projection is None:
        return states
    projected: Tensor = projection(states) if isinstance(projection, nn.Linear) else states @ projection
    return projected


def light_encoder(config: Mapping[str, Any]) -> Encoder:
    """The encoder of a parsed `open_clip_config.json` for which `light.is_light` holds, with random weights."""
    clip = LightCLIP(config["model_cfg"])
    settings = PhotoSettings.read(config.get("preprocess_cfg") or {}, clip.visual.image_size)
    tokenizer = ClipTokenizer.of_open_clip(config["model_cfg"]["text_cfg"]["context_length"])
    encoder = Encoder(clip=clip, tokenizer=tokenizer, preprocess=settings, config=config)
    encoder.preprocess(np.zeros((2, 2, 3), np.uint8))  # for a size that can't be
    return encoder
