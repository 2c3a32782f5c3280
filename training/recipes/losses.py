"""The losses of RaF-CLIP.

Shape legend: b images, d embedding width, n attribute texts an image, k values of a group.
`scale` is CLIP's logit_scale: it multiplies the cosine. Embeddings are L2-normalized.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Targets = Literal["identity", "same_text"]


def wrong_pairs(text_ids: Tensor, targets: Targets) -> Tensor:
    """(b, b) bool: which other texts of the batch count as wrong for each image.

    "identity" is the paper's: every text but the image's own, an equal text of another image too.
    "same_text": only texts that differ. (To share the target's mass among equal texts instead would change nothing:
    their embeddings are equal, and so are loss and gradient.)
    """
    if targets == "identity":
        return ~torch.eye(len(text_ids), dtype=torch.bool, device=text_ids.device)
    return text_ids[:, None] != text_ids[None, :]


def contrastive(image: Tensor, text: Tensor, scale: Tensor, wrong: Tensor) -> tuple[Tensor, Tensor]:
    """InfoNCE in both directions, eq. (1) and (2): image-to-text and text-to-image, each a scalar.

    Images and their texts are (b, d); `wrong`, of `wrong_pairs`, is (b, b) bool and symmetric.
    """
    own = torch.eye(len(image), dtype=torch.bool, device=image.device)
    logits = (scale * image @ text.T).masked_fill(~(wrong | own), float("-inf"))
    rows = torch.arange(len(image), device=image.device)
    return functional.cross_entropy(logits, rows), functional.cross_entropy(logits.T, rows)


def category_loss(image: Tensor, text: Tensor, scale: Tensor, wrong: Tensor) -> Tensor:
    """L_c, eq. (3): half the sum of both directions, on crops and category texts."""
    image_to_text, text_to_image = contrastive(image, text, scale, wrong)
    return (image_to_text + text_to_image) / 2


def attribute_loss(image: Tensor, text: Tensor, scale: Tensor, text_ids: Tensor, targets: Targets) -> Tensor:
    """L_a, eq. (4): the mean over the n attribute texts of the sum of both directions, on masked crops.

    Images are (b, d), texts (b, n, d); `text_ids` are (b, n) int64, equal for equal texts, -1 where an image has no
    such text.
    """
    terms = []
    for j in range(text_ids.shape[1]):
        present = text_ids[:, j] >= 0
        if present.sum() > 1:
            wrong = wrong_pairs(text_ids[present, j], targets)
            terms.append(sum(contrastive(image[present], text[present, j], scale, wrong)))
    if not terms:
        return image.sum() * 0
    return torch.stack([torch.as_tensor(term) for term in terms]).mean()


def raf_clip_loss(category: Tensor, attribute: Tensor, alpha: float) -> Tensor:
    """L, eq. (5): (1 - alpha) L_c + alpha L_a."""
    return (1 - alpha) * category + alpha * attribute


def vocabulary_loss(image: Tensor, text: Tensor, scale: Tensor, target: Tensor, smoothing: float = 0.0) -> Tensor:
    """Image-to-text InfoNCE against every value of a group instead of the batch's texts.

    It is zero-shot recognition's own decision as a loss: rare values are negatives in every step, equal texts never.
    Images are (b, d); texts (b, k, d), the prompts of all values for each image (its own category or color filled in);
    rows of `target`, (b, k), sum to 1 (one-hot for a label), or to 0 where nothing is known.
    """
    known = target.any(1)
    if not known.any():
        return image.sum() * 0
    logits = scale * torch.einsum("bd,bkd->bk", image[known], text[known])
    return functional.cross_entropy(logits, target[known], label_smoothing=smoothing)


def composition_loss(
    query: Tensor,
    gallery: Tensor,
    targets: Tensor,
    scale: Tensor,
    negatives: Literal["batch", "gallery"],
    also_right: Tensor | None = None,
    others: Tensor | None = None,
) -> Tensor:
    """L_r, eq. (13) and (14): batch-based classification, -log softmax of the scaled cosines to the targets.

    Queries are (b, d); the gallery (n, d) has photos, each once; `targets` are (b,) int64 rows of it. The negatives
    "batch" are the paper's: the targets of the batch, each photo once, so that a photo which two queries share is not
    its own negative; "gallery" is all photos. `also_right`, (b, n) bool, are photos that are no negatives of a query
    since they answer it too; never its target. `others`, (o,) int64, are rows that are negatives in either case.
    """
    if negatives == "batch":
        asked = targets if others is None else torch.cat([targets, others])
        chosen, places = torch.unique(asked, return_inverse=True)
        targets = places[: len(targets)]
        gallery, also_right = gallery[chosen], None if also_right is None else also_right[:, chosen]
    logits = scale * query @ gallery.T
    if also_right is not None:
        logits = logits.masked_fill(also_right, float("-inf"))
    return functional.cross_entropy(logits, targets)


def contrast_loss(ahead: Tensor) -> Tensor:
    """-log sigmoid of how far a query is ahead of one with a wrong photo or text: (b,) scaled differences -> (b,)."""
    return functional.softplus(-ahead)
