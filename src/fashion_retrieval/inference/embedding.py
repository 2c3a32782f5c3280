"""What a model makes with its encoder alone: embeddings of photos and texts, and queries composed of both."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack, overload

import numpy as np
from numpy.typing import NDArray

from fashion_retrieval._utils.checks import check_reading, check_whole
from fashion_retrieval._utils.progress import length_of, tracked
from fashion_retrieval.errors import InputError
from fashion_retrieval.images.inputs import DeferredFile, ImageInput, is_photo
from fashion_retrieval.inference.composition import Composition, ReferenceInput, as_pairs, check_text_weight
from fashion_retrieval.inference.pipeline import encode_photos, encode_texts
from fashion_retrieval.inference.vectors import Precision, check_vectors, quantized, shortened
from fashion_retrieval.results import Encoded, Explanation, Reference

if TYPE_CHECKING:
    from fashion_retrieval.models.towers import Towers
    from fashion_retrieval.models.zero_shot import PromptCache

OnError = Literal["raise", "skip"]


class _Encoding(TypedDict, total=False):
    """What `encode` takes beside `precision`, for the types of what it returns."""

    images: ImageInput | Iterable[ImageInput] | None
    texts: str | Sequence[str] | None
    batch_size: int
    progress: bool
    max_pixels: int | None
    dimensions: int | None


class EmbeddingModel:
    """The part of `FashionModel` that needs neither a segmenter nor a vocabulary."""

    towers: Towers
    _composition: Composition
    _texts: PromptCache
    _basis: NDArray[np.float32] | None

    @property
    def embedding_dim(self) -> int:
        """Width of the embeddings."""
        return self.towers.embedding_dim

    @property
    def backend(self) -> str:
        """What computes it: "torch", or another runtime with the precision of its graphs, "openvino int8"."""
        return self.towers.backend

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the encoder's weights, architecture and preprocessing; a gallery remembers it."""
        return self.towers.fingerprint

    @overload
    def encode(
        self, *, precision: Literal["float32"] = "float32", **given: Unpack[_Encoding]
    ) -> NDArray[np.float32]: ...
    @overload
    def encode(self, *, precision: Literal["float16"], **given: Unpack[_Encoding]) -> NDArray[np.float16]: ...
    @overload
    def encode(self, *, precision: Literal["int8", "binary"], **given: Unpack[_Encoding]) -> NDArray[np.int8]: ...
    @overload
    def encode(self, *, precision: Precision, **given: Unpack[_Encoding]) -> NDArray[Any]: ...
    def encode(
        self,
        *,
        images: ImageInput | Iterable[ImageInput] | None = None,
        texts: str | Sequence[str] | None = None,
        batch_size: int = 32,
        progress: bool = False,
        max_pixels: int | None = None,
        dimensions: int | None = None,
        precision: Precision = "float32",
    ) -> NDArray[Any]:
        """Embeddings of photos or of texts, in the same space.

        Args:
            images: One photo, or any number of them, read as they are needed; each whole photo is encoded, upright and
                in sRGB. Of untagged and sRGB photos embeddings are open_clip's own.
            texts: One text or a sequence of them.
            batch_size: How many go through the model at a time.
            progress: Show a progress bar on stderr.
            max_pixels: As in `recognize`.
            dimensions: How many numbers an embedding has, as `shorten` makes them; None is all D.
            precision: "float32"; "float16"; "int8", each row scaled so that its largest magnitude is 127; or a bit for
                the sign of each number, eight a byte: "ubinary" (uint8), "binary" (int8, less 128), as
                sentence-transformers has them. Its int8 takes ranges from a set of rows; here a row depends on no
                other, and the cosine of two int8 rows is that of the embeddings without any scale.

        Returns:
            (N, D) float32, L2-normalized; (1, D) for one. With a precision, its numbers: D, or D / 8 of bits.

        Raises:
            InputError: Both or neither given, or an item or argument can't be used; the message says which.
        """
        check_reading(max_pixels, batch_size)
        check_vectors(dimensions, precision, self.embedding_dim)
        if (images is None) == (texts is None):
            raise InputError("encode expects either images= or texts=, got both or neither; call it once for each")
        if texts is not None:
            listed = [texts] if isinstance(texts, str) else list(texts)
            rows = encode_texts(self._texts, listed, self.embedding_dim, batch_size=batch_size, progress=progress)
            return quantized(shortened(rows, dimensions, self._basis), precision)
        several: Any = images if isinstance(images, Iterable) and not is_photo(images) else [images]
        reading: dict[str, Any] = {"batch_size": batch_size, "skip": False, "max_pixels": max_pixels}
        found = encode_photos(self.towers, several, digests=False, **reading)
        made = [one.embedding for one in tracked(found, "encoding images", length_of(several), shown=progress)]
        rows = np.array(made, dtype=np.float32).reshape(-1, self.embedding_dim)
        return quantized(shortened(rows, dimensions, self._basis), precision)

    def shorten(self, embeddings: NDArray[np.float32], dimensions: int) -> NDArray[np.float32]:
        """What `encode` with `dimensions` gives, of (N, D) or (D,) float32 of this model: (N, dimensions) float32.

        They are the first coordinates, L2-normalized again; of models whose folder has `dimensions.safetensors`, in
        the order of what they tell. Queries of `compose` are shortened with it.

        Raises:
            InputError: The embeddings are not of this model's width, or `dimensions` is not from 1 to it.
        """
        check_whole("dimensions", dimensions, self.embedding_dim)
        rows = np.asarray(embeddings)
        if rows.dtype.kind != "f" or rows.ndim not in (1, 2) or rows.shape[-1] != self.embedding_dim:
            expected = f"floats of shape (N, {self.embedding_dim}) or ({self.embedding_dim},)"
            raise InputError(f"embeddings must be {expected}, got {rows.dtype} {rows.shape}; see FashionModel.encode")
        return shortened(rows, dimensions, self._basis)

    @property
    def basis_digest(self) -> str | None:
        """SHA-256 of the basis that `shorten` uses; None where it takes the first numbers."""
        return None if self._basis is None else hashlib.sha256(self._basis.tobytes()).hexdigest()

    def encode_iter(
        self,
        images: Iterable[ImageInput | DeferredFile],
        *,
        batch_size: int = 32,
        on_error: OnError = "raise",
        max_pixels: int | None = None,
        dimensions: int | None = None,
        precision: Precision = "float32",
    ) -> Generator[Encoded]:
        """Encode any number of photos one after the other, in bounded memory; their files are read by threads.

        Each file is read once. When the generator is closed, no thread is left.

        Args:
            images: Photos, taken as they are needed; each whole photo is encoded.
            batch_size: How many photos in a row go through the model at a time, and are held.
            on_error: "raise" yields what came before a photo that can't be read and raises its error; "skip" yields a
                `Failure` as its embedding and goes on.
            max_pixels: As in `recognize`.
            dimensions: As in `encode`.
            precision: As in `encode`.

        Returns:
            In the order of the photos, for each its position, its embedding, (D,) float32, L2-normalized, and the
            digest of its file.

        Raises:
            InputError: A photo can't be used; the message begins with its place, "images[3]".
        """
        check_reading(max_pixels, batch_size, on_error)
        check_vectors(dimensions, precision, self.embedding_dim)
        reading: dict[str, Any] = {"batch_size": batch_size, "skip": on_error == "skip", "max_pixels": max_pixels}
        found = encode_photos(self.towers, images, **reading)
        whole = precision == "float32" and dimensions is None
        return found if whole else self._smaller(found, dimensions, precision)

    def _smaller(self, found: Generator[Encoded], dimensions: int | None, precision: Precision) -> Generator[Encoded]:
        with closing(found):
            for one in found:
                if isinstance(one.embedding, np.ndarray):
                    row = shortened(one.embedding[np.newaxis], dimensions, self._basis)
                    yield replace(one, embedding=quantized(row, precision)[0])
                else:
                    yield one

    def reference(
        self,
        images: ReferenceInput | Sequence[ReferenceInput],
        *,
        batch_size: int = 32,
        max_pixels: int | None = None,
    ) -> list[Reference]:
        """Reference photos encoded for `compose`, to be used with many texts; one `Reference` a photo.

        Args:
            images: One photo or a sequence of them, as `encode` takes; matches of a gallery too.
            batch_size: How many go through the model at a time.
            max_pixels: As in `recognize`.

        Raises:
            InputError: A photo can't be used; the message says which.
            UnsupportedError: This model's image tower has no token features.
        """
        check_reading(max_pixels, batch_size)
        several: list[Any] = list(images) if isinstance(images, list | tuple) else [images]
        return self._composition.references(several, batch_size, max_pixels)

    def compose(
        self,
        reference_image: ReferenceInput | Sequence[ReferenceInput | None] | None,
        modification_text: str | Sequence[str | None] | None,
        *,
        text_weight: float | None = None,
        batch_size: int = 32,
        max_pixels: int | None = None,
    ) -> NDArray[np.float32]:
        """Queries from photos and wishes: "this one, but red with long sleeves" (AGCN).

        Args:
            reference_image: A photo as `encode` takes it, a `Reference`, a `Match` of a gallery, or a list of these.
                Without one (None) the query is the text's own embedding.
            modification_text: What should be different, or a list of as many texts. Without one the query is the
                photo's own embedding.
            text_weight: 0 is the photo's own embedding, 1 the text's own; None, the query as composed, is 0.5. From 0
                to 0.5 the query comes steadily away from the photo, from 0.5 to 1 steadily nearer to the text.
            batch_size: How many go through the model at a time.
            max_pixels: As in `recognize`.

        Returns:
            (N, D) float32, L2-normalized; (1, D) for one pair.

        Raises:
            InputError: A photo or a text can't be used, or the lists differ in length; the message says which.
            UnsupportedError: This model has no composer.
        """
        check_reading(max_pixels, batch_size)
        return self._composition.queries(
            as_pairs(reference_image, modification_text),
            lambda texts: self.encode(texts=texts, batch_size=batch_size),
            text_weight=check_text_weight(text_weight),
            batch_size=batch_size,
            max_pixels=max_pixels,
        )

    def explain(
        self,
        reference_image: ReferenceInput | None,
        modification_text: str | None,
        *,
        text_weight: float | None = None,
        max_pixels: int | None = None,
    ) -> Explanation:
        """Why `compose` gives the query that it gives: how much of photo and text is in it, and which words moved it.

        A word's share is measured by leaving it out: 1 - cosine of the query to that of the text without it, over the
        sum of all words. All these texts go through the model in one batch; `compose` alone takes less time.

        Args:
            reference_image: One photo, as `compose` takes it, or None.
            modification_text: One text, or None.
            text_weight: As in `compose`.
            max_pixels: As in `recognize`.

        Raises:
            InputError: The photo or the text can't be used, there is neither, or there are several.
            UnsupportedError: There are both, and this model has no composer.
        """
        check_reading(max_pixels)
        if isinstance(reference_image, list | tuple) or isinstance(modification_text, list | tuple):
            raise InputError("explain expects one photo and one text, got a list; call it once for each")
        [(photo, text)] = as_pairs(reference_image, modification_text)
        return self._composition.explain(
            photo,
            text,
            lambda texts: self.encode(texts=texts),
            text_weight=check_text_weight(text_weight),
            max_pixels=max_pixels,
        )
