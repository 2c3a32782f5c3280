"""DCNet: experts compose photo and text; a correction network must read the text off the photo and its target.

Kim, Yu, Kim and Kim, 2021, Dual Compositional Learning in Interactive Image Retrieval, AAAI: the composition network
(section 3.1) over image experts with text experts that attend to words, and the loss of the correction network (3.2).

What differs: experts are the pooled embedding, the mean and the maximum of the cells instead of three depths of the
backbone, and their results, each L2-normalized, are added, since the target has one frozen embedding; the joint loss
(3.3) and the score of the correction network at test time are left out, as a gallery is searched by one vector.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from fashion_retrieval.config import ComposerConfig
from training.composers.base import Baseline, Tokens, two_layers


class Dcnet(Baseline):
    """The sum of three experts."""

    def __init__(self, config: ComposerConfig) -> None:
        super().__init__()
        self.experts = nn.ModuleList(Expert(config) for _ in range(3))
        self.correction = Correction(config)

    def compose(self, tokens: Tokens) -> Tensor:
        """Each expert sees the photo in its own way, and words of its own choice."""
        seen = (tokens.image, tokens.cells.mean(1), tokens.cells.amax(1))
        made = [expert(image, tokens) for expert, image in zip(self.experts, seen, strict=True)]
        return torch.stack([functional.normalize(one, dim=-1) for one in made]).sum(0)

    def learn(self, tokens: Tokens, targets: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """With L_corr: what lies between photo and target is told from the other texts of the batch."""
        query = functional.normalize(self.compose(tokens), dim=-1)
        difference = self.correction(tokens.image, targets)
        rows = torch.arange(len(query), device=query.device)
        return query, functional.cross_entropy(scale * difference @ tokens.text.T, rows)


class Expert(nn.Module):
    """Words weighed for this expert, and a gated residual of photo, text and their product."""

    def __init__(self, config: ComposerConfig) -> None:
        super().__init__()
        width = config.embedding_dim
        self.attend = nn.Sequential(nn.Linear(width, config.width), nn.ReLU(), nn.Linear(config.width, 1, bias=False))
        self.embed = nn.Linear(width, width)
        self.gate = two_layers(3 * width, config.width, width, config.dropout)
        self.residual = two_layers(3 * width, config.width, width, config.dropout)

    def forward(self, image: Tensor, tokens: Tokens) -> Tensor:
        """(b, d) -> (b, d)."""
        scores = self.attend(tokens.words).squeeze(-1).masked_fill(tokens.padding, float("-inf"))
        text = self.embed((scores.softmax(-1)[..., None] * tokens.words).sum(1))
        both = torch.cat([image, text, image * text], dim=-1)
        made: Tensor = self.gate(both).sigmoid() * image + self.residual(both)
        return made


class Correction(nn.Module):
    """The difference of two photos as a text's embedding."""

    def __init__(self, config: ComposerConfig) -> None:
        super().__init__()
        width = config.embedding_dim
        self.before = nn.Sequential(nn.Linear(2 * width, width), nn.ReLU())
        self.after = nn.Sequential(nn.Linear(2 * width, width), nn.ReLU())
        self.exit = two_layers(3 * width, config.width, width, config.dropout)

    def forward(self, reference: Tensor, target: Tensor) -> Tensor:
        """(b, d), (b, d) -> (b, d), L2-normalized."""
        shared = reference * target
        before = self.before(torch.cat([shared, reference], dim=-1))
        after = self.after(torch.cat([shared, target], dim=-1))
        return functional.normalize(self.exit(torch.cat([reference, after - before, target], dim=-1)), dim=-1)
