"""A model that is ready to compute: what `FashionModel` is made of, whatever runtime computes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fashion_retrieval.checkpoint.extras import Extras
from fashion_retrieval.config import ModelConfig
from fashion_retrieval.models.towers import Composes, Towers
from fashion_retrieval.results import Segmenter

if TYPE_CHECKING:
    import torch

    from fashion_retrieval.checkpoint.folder import Bundle


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """Towers, and what the model has beside them; `bundle` loads its modules, where somebody asks for them."""

    towers: Towers
    composer: Composes | None
    segmenter: Segmenter | None
    composer_digest: Callable[[], str | None]
    bundle: Callable[[], Bundle]
    config: ModelConfig | None
    extras: Extras = field(default_factory=Extras)
    device: str = "cpu"


def by_torch(
    bundle: Bundle, device: str | torch.device, dtype: str | torch.dtype, *, again: Callable[[], Bundle] | None = None
) -> Ready:
    """The modules of a model, computed by torch on a device and in a dtype, by their names or "auto".

    What computes is a copy. Where the encoder's fingerprint is known, and `again` loads the bundle once more, the copy
    is all that stays in memory.
    """
    from fashion_retrieval._utils.device import resolve_device, resolve_dtype
    from fashion_retrieval.models.torch_towers import TorchComposer, TorchTowers, ready_segmenter
    from fashion_retrieval.models.weights import weights_digest

    where = resolve_device(device)
    kind = resolve_dtype(dtype, where)
    known: str | None = vars(bundle.encoder).get("fingerprint") if again else None
    composer = bundle.composer
    return Ready(
        towers=TorchTowers(bundle.encoder, where, kind, fingerprint=known),
        composer=TorchComposer(bundle.composer, where) if bundle.composer else None,
        segmenter=ready_segmenter(bundle.segmenter, where) if bundle.segmenter else None,
        composer_digest=lambda: weights_digest(composer) if composer else None,
        bundle=again if again and known else lambda: bundle,
        config=bundle.config,
        extras=bundle.extras,
        device=str(where),
    )
