"""FashionModel: the one front door."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from fashion_retrieval import hub
from fashion_retrieval._utils.checks import check_batch_size, check_on_error
from fashion_retrieval._utils.device import describe as describe_device
from fashion_retrieval._utils.device import resolve_device, resolve_dtype
from fashion_retrieval._utils.progress import length_of, tracked
from fashion_retrieval.config import ModelConfig
from fashion_retrieval.errors import InputError
from fashion_retrieval.images.inputs import DeferredFile, ImageInput, describe, is_photo
from fashion_retrieval.images.load import load_pixels
from fashion_retrieval.images.regions import check_boxes
from fashion_retrieval.inference.composition import Composition, ReferenceInput, as_pairs, check_text_weight
from fashion_retrieval.inference.pipeline import encode_photos, encode_texts, recognize_photos
from fashion_retrieval.inference.recognition import Recognizer, RecognizerCache, find_photo
from fashion_retrieval.models.zero_shot import PromptCache
from fashion_retrieval.results import Encoded, Failure, Recognition, Reference, Segmenter
from fashion_retrieval.taxonomy import Taxonomy

if TYPE_CHECKING:
    from fashion_retrieval.checkpoint.folder import Bundle
    from fashion_retrieval.models.encoder import Encoder
    from fashion_retrieval.models.segmenter import GarmentSegmenter

Boxes = ArrayLike | None
OnError = Literal["raise", "skip"]
TaxonomyInput = Taxonomy | dict[str, Any] | str | Path | None
SegmenterInput = Segmenter | Literal["auto"] | None


class FashionModel:
    """A dual encoder for photos and texts of clothes, with a segmenter and a vocabulary.

    Threads may share a model: each call works on its own, and what they have in common, as embedded prompts, is locked.

    Attributes:
        model_id: What it was loaded as.
        revision: The commit of its Hub repository; None where it comes from elsewhere.
        encoder: The open_clip model with its tokenizer and preprocessing.
        config: What the model's own files say of it.
        device: Where it runs.
        dtype: The type its weights are held and computed in; results are float32.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        model_id: str,
        device: str | torch.device = "auto",
        dtype: str = "auto",
        revision: str | None = None,
    ) -> None:
        self.model_id = model_id
        self.revision = revision
        self.config = bundle.config or ModelConfig(name=model_id)
        self.device = resolve_device(device)
        self.dtype = resolve_dtype(dtype, self.device)
        self.encoder: Encoder = bundle.encoder.for_inference(self.device, self.dtype)
        self._bundle = bundle
        composer = bundle.composer.to(self.device) if bundle.composer else None
        self._composition = Composition(self.encoder, composer, self.device, self.dtype)
        self._segmenter = self._ready(bundle.segmenter)
        self._prompts = PromptCache(self.encoder, self.device)
        self._texts = PromptCache(self.encoder, self.device)  # of users: they don't push out the prompts
        self._recognizers = RecognizerCache(self.encoder, self._prompts, self.device, model_id)
        self._lock = Lock()

    @classmethod
    def from_pretrained(
        cls,
        id_or_path: str | Path = hub.EMBEDDED,
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        token: str | None = None,
        device: str | torch.device = "auto",
        dtype: str = "auto",
        backend: str = "auto",
    ) -> FashionModel:
        """Load a model.

        Args:
            id_or_path: "compact", the model inside the package; a folder; or a Hub repository in this package's,
                open_clip's or the transformers CLIP format ("laion/CLIP-ViT-B-32-laion2B-s34B-b79K").
            revision: Branch, tag or commit of the repository.
            cache_dir: Where downloads are kept; None is huggingface_hub's cache.
            local_files_only: Never use the network.
            token: For private and gated repositories.
            device: "auto" (CUDA, else Apple MPS, else CPU), "cpu", "cuda", "cuda:1", "mps".
            dtype: "auto" (bfloat16 where the hardware multiplies it), "float32", "bfloat16", "float16".
            backend: "torch"; "openvino" or "onnx", on the CPU: the folder's exported model or, without one, float32
                converted now; "auto" is the exported model where it kept its parity, else torch.

        Raises:
            ModelNotFoundError: No such model, or not in the cache while offline.
            HubError: The Hub refused or did not answer.
            WeightsError: Weights that are pickled, truncated, altered or of another architecture.
            ConfigError: A configuration with a fault.
        """
        exported = backend if resolve_device(device).type == "cpu" else "torch"
        where: dict[str, Any] = {"revision": revision, "cache_dir": cache_dir, "local_files_only": local_files_only}
        folder = hub.resolve(id_or_path, token=token, backend=exported, **where)
        from fashion_retrieval.backends.attach import attach  # brings open_clip and timm, heavy to import
        from fashion_retrieval.checkpoint.folder import load

        bundle, dtype = attach(load(folder), folder, backend=backend, device=device, dtype=dtype)
        from_hub = folder.parent.name == "snapshots" and not Path(id_or_path).expanduser().is_dir()
        commit = folder.name if from_hub else None
        return cls(bundle, model_id=str(id_or_path), device=device, dtype=dtype, revision=commit)

    def __repr__(self) -> str:
        height, width = self.encoder.image_size
        where = describe_device(self.device, self.dtype) + ("" if self.backend == "torch" else f", {self.backend}")
        return f"FashionModel({self.model_id!r}, {self.embedding_dim}-d, {width}x{height} px, {where})"

    @property
    def embedding_dim(self) -> int:
        """Width of the embeddings."""
        return self.encoder.embedding_dim

    @property
    def backend(self) -> str:
        """What computes it: "torch", or another runtime with the precision of its graphs, "openvino int8"."""
        return self.encoder.backend

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the encoder's weights, architecture and preprocessing; a gallery remembers it."""
        return self.encoder.fingerprint

    @property
    def segmenter(self) -> Segmenter | None:
        """What finds the garments: the model's own segmenter or, where it has none, the embedded model's."""
        with self._lock:
            if self._segmenter is None:
                from fashion_retrieval.checkpoint.folder import load_segmenter

                self._segmenter = self._ready(load_segmenter(hub.resolve(hub.EMBEDDED)))
            return self._segmenter

    def recognizer(self, taxonomy: TaxonomyInput = None, top_k: int = 3) -> Recognizer:
        """What recognition is made of, for those who bring their own regions: training, calibration, galleries.

        It embeds crops, classifies embeddings and names colors. Prompts are embedded once for each taxonomy.

        Args:
            taxonomy: As in `recognize`.
            top_k: As in `recognize`.

        Raises:
            InputError: The taxonomy can't be used, or `top_k` is below 1.
        """
        return self._recognizers.get(self.config, self.config.taxonomy if taxonomy is None else taxonomy, top_k)

    def recognize(
        self,
        image: ImageInput,
        *,
        boxes: Boxes = None,
        segmenter: SegmenterInput = "auto",
        taxonomy: TaxonomyInput = None,
        top_k: int = 3,
        max_pixels: int | None = None,
        keep_image: bool = True,
    ) -> Recognition:
        """What is in a photo: its garments with box, mask, category, attributes and colors.

        Args:
            image: Path, bytes, binary file, PIL image, HWC uint8 array or CHW uint8 tensor.
            boxes: (N, 4) xyxy in pixels of the upright photo; one garment a box. None finds the garments.
            segmenter: "auto" is the model's own or, where it has none, the embedded one; None takes the whole photo (or
                each whole box) for one region.
            taxonomy: "default", "deepfashion", a YAML or JSON file, a dict; None is the model's own.
            top_k: How many alternatives to report.
            max_pixels: Refuse larger photos before they are decoded; None is about 179 million.
            keep_image: Keep the photo for drawing, 3 bytes a pixel, and masks, 1 byte a pixel each. Without it masks
                are kept compressed, and a result takes some kilobytes.

        Returns:
            The photo's size and garments; none found is an empty result.

        Raises:
            InputError: The photo, the boxes or the taxonomy can't be used.
        """
        recognizer, finder = self.recognizer(taxonomy, top_k), self._finder(segmenter)
        pixels = load_pixels(image, max_pixels=max_pixels)
        if boxes is not None:
            boxes = check_boxes(boxes, pixels.shape[1], pixels.shape[0])
        found = recognizer.recognize([find_photo(pixels, boxes, finder, describe(image))])[0]
        return found if keep_image else found.compact()

    def recognize_many(
        self,
        images: Iterable[ImageInput],
        *,
        segmenter: SegmenterInput = "auto",
        taxonomy: TaxonomyInput = None,
        top_k: int = 3,
        batch_size: int = 16,
        on_error: OnError = "raise",
        progress: bool = False,
        max_pixels: int | None = None,
        keep_image: bool = True,
    ) -> Iterator[Recognition | Failure]:
        """Recognize many photos, batched across photos; one result a photo, in order.

        Args:
            images: Photos, read as they are needed.
            segmenter: As in `recognize`.
            taxonomy: As in `recognize`.
            top_k: As in `recognize`.
            batch_size: Photos held in memory at a time, and regions encoded at a time.
            on_error: "raise" yields what came before a photo that can't be read and raises its error; "skip" yields a
                `Failure` in its place and goes on.
            progress: Show a progress bar on stderr.
            max_pixels: As in `recognize`.
            keep_image: As in `recognize`; set it to False to collect the results of many photos.

        Raises:
            InputError: An argument can't be used, or without "skip" a photo.
        """
        check_on_error(on_error)
        check_batch_size(batch_size)
        recognizer, finder = self.recognizer(taxonomy, top_k), self._finder(segmenter)
        options: dict[str, Any] = {"skip": on_error == "skip", "max_pixels": max_pixels, "keep_image": keep_image}
        found = recognize_photos(recognizer, finder, images, batch_size=batch_size, **options)
        return tracked(found, "recognizing", length_of(images), shown=progress)

    def encode(
        self,
        *,
        images: ImageInput | Iterable[ImageInput] | None = None,
        texts: str | Sequence[str] | None = None,
        batch_size: int = 32,
        progress: bool = False,
    ) -> NDArray[np.float32]:
        """Embeddings of photos or of texts, in the same space.

        Args:
            images: One photo, or any number of them, read as they are needed; each whole photo is encoded.
            texts: One text or a sequence of them.
            batch_size: How many go through the model at a time.
            progress: Show a progress bar on stderr.

        Returns:
            (N, D) float32, L2-normalized; (1, D) for one.

        Raises:
            InputError: Both or neither given, or an item can't be used; the message says which.
        """
        check_batch_size(batch_size)
        if (images is None) == (texts is None):
            raise InputError("encode expects either images= or texts=, got both or neither; call it once for each")
        if texts is not None:
            listed = [texts] if isinstance(texts, str) else list(texts)
            return encode_texts(self._texts, listed, self.embedding_dim, batch_size=batch_size, progress=progress)
        several: Any = images if isinstance(images, Iterable) and not is_photo(images) else [images]
        found = encode_photos(self.encoder, self.device, several, batch_size=batch_size, skip=False, digests=False)
        rows = [one.embedding for one in tracked(found, "encoding images", length_of(several), shown=progress)]
        return np.array(rows, dtype=np.float32).reshape(-1, self.embedding_dim)

    def encode_iter(
        self,
        images: Iterable[ImageInput | DeferredFile],
        *,
        batch_size: int = 32,
        on_error: OnError = "raise",
        max_pixels: int | None = None,
    ) -> Generator[Encoded]:
        """Encode any number of photos one after the other, in bounded memory; their files are read by threads.

        Each file is read once. When the generator is closed, no thread is left.

        Args:
            images: Photos, taken as they are needed; each whole photo is encoded.
            batch_size: How many photos in a row go through the model at a time, and are held.
            on_error: "raise" yields what came before a photo that can't be read and raises its error; "skip" yields a
                `Failure` as its embedding and goes on.
            max_pixels: As in `recognize`.

        Returns:
            In the order of the photos, for each its position, its embedding, (D,) float32, L2-normalized, and the
            digest of its file.

        Raises:
            InputError: A photo can't be used; the message begins with its place, "images[3]".
        """
        check_on_error(on_error)
        check_batch_size(batch_size)
        skip = on_error == "skip"
        return encode_photos(self.encoder, self.device, images, batch_size=batch_size, skip=skip, max_pixels=max_pixels)

    def reference(self, images: ReferenceInput | Sequence[ReferenceInput], *, batch_size: int = 32) -> list[Reference]:
        """Reference photos encoded for `compose`, to be used with many texts; one `Reference` a photo.

        Args:
            images: One photo or a sequence of them, as `encode` takes; matches of a gallery too.
            batch_size: How many go through the model at a time.

        Raises:
            InputError: A photo can't be used; the message says which.
            UnsupportedError: This model's image tower has no token features.
        """
        check_batch_size(batch_size)
        several: list[Any] = list(images) if isinstance(images, list | tuple) else [images]
        return self._composition.references(several, batch_size)

    def compose(
        self,
        reference_image: ReferenceInput | Sequence[ReferenceInput | None] | None,
        modification_text: str | Sequence[str | None] | None,
        *,
        text_weight: float | None = None,
        batch_size: int = 32,
    ) -> NDArray[np.float32]:
        """Queries from photos and wishes: "this one, but red with long sleeves" (AGCN).

        Args:
            reference_image: A photo as `encode` takes it, a `Reference`, a `Match` of a gallery, or a list of these.
                Without one (None) the query is the text's own embedding.
            modification_text: What should be different, or a list of as many texts. Without one the query is the
                photo's own embedding.
            text_weight: From 0 (keep all of the photo) to 1 (the text alone); None, as trained, is 0.5.
            batch_size: How many go through the model at a time.

        Returns:
            (N, D) float32, L2-normalized; (1, D) for one pair.

        Raises:
            InputError: A photo or a text can't be used, or the lists differ in length; the message says which.
            UnsupportedError: This model has no composer.
        """
        check_batch_size(batch_size)
        return self._composition.queries(
            as_pairs(reference_image, modification_text),
            lambda texts: self.encode(texts=texts, batch_size=batch_size),
            text_weight=check_text_weight(text_weight),
            batch_size=batch_size,
        )

    def save_pretrained(self, folder: str | Path, *, card_id: str | None = None) -> Path:
        """Write the model folder: weights, configuration, card. Saving what was loaded gives the same bytes.

        The card tells its readers to load `card_id`, by default what this model was loaded as.
        """
        from fashion_retrieval.checkpoint.folder import save
        from fashion_retrieval.hub.model_card import write_card

        folder = Path(folder)
        write_card(save(self._bundle, folder), folder, model_id=card_id or self.model_id)
        return folder

    def push_to_hub(
        self,
        repo_id: str,
        *,
        token: str | None = None,
        private: bool = False,
        revision: str | None = None,
        commit_message: str = "Upload with fashion-retrieval",
        dry_run: bool = False,
    ) -> hub.Upload:
        """Upload the model with its card in one commit, or tell what would be sent; print what it returns for a list.

        Arguments and errors are those of `hub.push`: repository and branch are made where they are missing.
        """
        hub.check_repo_id(repo_id)
        options: dict[str, Any] = {"token": token, "private": private, "revision": revision}
        with TemporaryDirectory() as parent:
            folder = self.save_pretrained(Path(parent, repo_id.partition("/")[2]), card_id=repo_id)
            return hub.push(folder, repo_id, commit_message=commit_message, dry_run=dry_run, **options)

    def _finder(self, segmenter: SegmenterInput) -> Segmenter | None:
        if segmenter == "auto":
            return self.segmenter
        if segmenter is None or isinstance(segmenter, Segmenter):
            return segmenter
        raise InputError(f"segmenter must be 'auto', None or have a segment() method, got {segmenter!r}")

    def _ready(self, segmenter: GarmentSegmenter | None) -> Segmenter | None:
        if segmenter is None:
            return None
        from fashion_retrieval.models.inference_copy import for_inference

        return for_inference(segmenter, self.device, torch.float32)
