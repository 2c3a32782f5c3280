"""What inference asks of a model: numpy in, numpy out, whatever computes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fashion_retrieval.images.preprocess import Preprocessing

Floats = NDArray[np.float32]
Levels = NDArray[np.uint8]


class Towers(Protocol):
    """A dual encoder. Shape legend: b batch, s tokens of a text, k tokens of a photo, d embedding width."""

    backend: str  # "torch", or another runtime with the precision of its graphs, "openvino int8"
    dtype: str  # that it computes in: "float32", "bfloat16" or "float16"
    preprocessing: Preprocessing
    embedding_dim: int
    context_length: int
    logit_scale: float  # the learned factor on the cosine, CLIP's inverse temperature
    ahead: int  # batches of photos to decode while it computes

    @property
    def fingerprint(self) -> str:
        """SHA-256 of weights, architecture and preprocessing: equal fingerprints give equal embeddings."""
        ...

    def encode_images(self, levels: Sequence[Levels]) -> Floats:
        """Photos as `Preprocessing.resize` leaves them, at least one -> (b, d), L2-normalized."""
        ...

    def image_tokens(self, levels: Sequence[Levels]) -> Floats:
        """The same -> (b, 1 + k, d), the pooled embedding, then one token a patch or map cell.

        All are in the embedding space, none is normalized. A tower that pools by attention is unsupported.
        """
        ...

    def encode_texts(self, texts: Sequence[str]) -> Floats:
        """At least one text -> (b, d), L2-normalized."""
        ...

    def text_tokens(self, texts: Sequence[str]) -> tuple[Floats, NDArray[np.int64]]:
        """The same -> (b, s, d), not normalized, and the length of each, (b,).

        A text tower that does not read causally up to an end-of-text token (SigLIP) is unsupported.
        """
        ...

    def count_tokens(self, texts: Sequence[str]) -> int:
        """How many tokens the texts have together, the marks around each among them."""
        ...


class Composes(Protocol):
    """A composer of a reference photo's tokens and a text's into a query."""

    def __call__(self, image: Floats, text: Floats, lengths: NDArray[np.int64]) -> Floats:
        """(b, 1 + k, d), (b, s, d) and (b,) -> (b, d), L2-normalized."""
        ...

    def parts(self, image: Floats, text: Floats, lengths: NDArray[np.int64]) -> tuple[Floats, Floats, Floats]:
        """The same -> what is kept of the photo and what the text changes, (b, d) each, and both gates, (b, 2)."""
        ...
