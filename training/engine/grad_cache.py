"""Large batches in little memory: gradients by cached embeddings (GradCache, Gao et al., 2021)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def embed_in_parts(encode: Callable[[Tensor], Tensor], batch: Tensor, micro_batch: int) -> Tensor:
    """Embed a batch while holding the activations of one part at a time: (b, …) -> (b, d).

    A contrastive loss needs all embeddings, not all activations. The forward pass keeps the inputs of each part; the
    backward pass embeds part after part again, with the same random numbers, and backpropagates its gradient. The
    result is that of the plain step; a step takes half as long again. `encode` must work row by row; parts of 0 rows
    keep the activations of all.
    """
    if not micro_batch or not torch.is_grad_enabled():
        return encode(batch)

    def encode_part(part: Tensor) -> Tensor:
        torch.clear_autocast_cache()  # else the parts share half-precision weights, where their gradients add up
        return encode(part)

    return torch.cat([checkpoint(encode_part, part, use_reentrant=False) for part in torch.split(batch, micro_batch)])
