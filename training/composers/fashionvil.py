"""FashionViL's fusion encoder: one transformer over image and text tokens together.

Han, Yu, Zhu, Zhang, Song and Xiang, 2022, FashionViL: Fashion-Focused Vision-and-Language Representation Learning,
ECCV: the modality-agnostic encoder in fusion mode, its tokens averaged for text-guided image retrieval.

What differs: trained from a random start on frozen tokens instead of pre-trained on 1.35 million pairs with its six
tasks; no embeddings of place (text tokens know theirs, and patches may be of any number).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fashion_retrieval.config import ComposerConfig
from training.composers.base import Baseline, Tokens


class Fashionvil(Baseline):
    """The mean of all fused tokens, projected."""

    def __init__(self, config: ComposerConfig) -> None:
        super().__init__()
        self.image_entrance = nn.Linear(config.embedding_dim, config.width)
        self.text_entrance = nn.Linear(config.embedding_dim, config.width)
        self.entrance_norm = nn.LayerNorm(config.width)
        layer = nn.TransformerEncoderLayer(
            config.width, config.heads, config.hidden, config.dropout, "gelu", batch_first=True
        )
        self.layers = nn.TransformerEncoder(layer, config.depth, enable_nested_tensor=False)
        self.exit = nn.Linear(config.width, config.embedding_dim)

    def compose(self, tokens: Tokens) -> Tensor:
        """The kind of a token is told by its entrance's bias."""
        image = self.image_entrance(torch.cat([tokens.image[:, None], tokens.cells], dim=1))
        text = self.text_entrance(tokens.words)
        seen = torch.zeros(image.shape[:2], dtype=torch.bool, device=image.device)
        padding = torch.cat([seen, tokens.padding], dim=1)
        states = self.entrance_norm(torch.cat([image, text], dim=1))
        fused = self.layers(states, src_key_padding_mask=padding)
        kept = (~padding)[..., None].to(fused.dtype)
        result: Tensor = self.exit((fused * kept).sum(1) / kept.sum(1))
        return result
