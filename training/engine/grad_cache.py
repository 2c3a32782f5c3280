"""Large batches in little memory: gradients by cached embeddings (GradCache, Gao et al., 2021)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def embed_in_parts(encode: Callable[[Tensor], Tensor], batch: Tensor, micro_batch: int) -> Tensor:
    """Embed a batch so that the activations of one part alone are held: (b, …) -> (b, d).

    A contrastive loss needs all embeddings, not all activations. Each part is embedded without keeping what backward
    would need; from the embeddings come the loss and its gradient with respect to each; then part after part is
    embedded again, from the same chance, and its gradient passed on. The result is the plain step's, for half as much
    again of its time. To autograd, this is a checkpoint around each part.

    Args:
        encode: A part to its embeddings, row by row.
        batch: Inputs.
        micro_batch: Rows of a part; 0 keeps the activations of all.
    """
    if not micro_batch or not torch.is_grad_enabled():
        return encode(batch)

    def encode_part(part: Tensor) -> Tensor:
        torch.clear_autocast_cache()  # else all parts share half-precision weights, and their gradients add up in it
        return encode(part)

    return torch.cat([checkpoint(encode_part, part, use_reentrant=False) for part in torch.split(batch, micro_batch)])
