"""FashionModel: the one front door."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal

from numpy.typing import ArrayLike

from fashion_retrieval import hub
from fashion_retrieval._utils.checks import check_reading
from fashion_retrieval._utils.cpu import threads
from fashion_retrieval._utils.forks import check_fork, remember_process
from fashion_retrieval._utils.progress import length_of, tracked
from fashion_retrieval.backends.attach import embedded_segmenter, is_cpu, open_model
from fashion_retrieval.backends.ready import Ready, by_torch
from fashion_retrieval.config import ModelConfig
from fashion_retrieval.errors import InputError, UnsupportedError
from fashion_retrieval.images.inputs import ImageInput, called, is_photo, read_content
from fashion_retrieval.images.load import decode
from fashion_retrieval.images.regions import check_boxes
from fashion_retrieval.inference.composition import Composition
from fashion_retrieval.inference.embedding import EmbeddingModel, OnError
from fashion_retrieval.inference.evaluating import evaluate_photos, read_truth
from fashion_retrieval.inference.fitting import fit_group, listed, read_labels, with_probe
from fashion_retrieval.inference.pipeline import recognize_photos
from fashion_retrieval.inference.recognition import Recognizer, RecognizerCache, find_photo
from fashion_retrieval.models.zero_shot import PromptCache
from fashion_retrieval.results import AttributeFit, Evaluation, Failure, Recognition, Segmenter
from fashion_retrieval.taxonomy import Taxonomy

if TYPE_CHECKING:
    import torch

    from fashion_retrieval.checkpoint.folder import Bundle
    from fashion_retrieval.models.encoder import Encoder

Boxes = ArrayLike | None
TaxonomyInput = Taxonomy | dict[str, Any] | str | Path | None
SegmenterInput = Segmenter | Literal["auto"] | None


class FashionModel(EmbeddingModel):
    """A dual encoder for photos and texts of clothes, with a segmenter and a vocabulary.

    Threads may share a model: each call works on its own, and what they have in common, as embedded prompts, is locked.

    Attributes:
        model_id: What it was loaded as.
        revision: The commit of its Hub repository; None where it comes from elsewhere.
        config: What the model's own files say of it.
        towers: What computes embeddings, in whatever runtime: photos and texts in, numpy arrays out.
    """

    def __init__(
        self,
        bundle: Bundle | Ready,
        *,
        model_id: str,
        device: str | torch.device = "auto",
        dtype: str = "auto",
        revision: str | None = None,
    ) -> None:
        remember_process()
        ready = bundle if isinstance(bundle, Ready) else by_torch(bundle, device, dtype)
        self.model_id, self.revision = model_id, revision
        self.config = ready.config or ModelConfig(name=model_id)
        self.towers = ready.towers
        self._ready = ready
        self._own_config = ready.config  # None where the folder has none: it is saved as one named after its folder
        self._extras, self._basis = ready.extras, ready.extras.basis
        self._composition = Composition(self.towers, ready.composer)
        self._segmenter = ready.segmenter
        self._prompts = PromptCache(self.towers, ready.extras.prompts)
        self._texts = PromptCache(self.towers)  # of users: they don't push out the prompts
        self._recognizers = RecognizerCache(self.towers, self._prompts, model_id)
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
        require_commercial: bool = False,
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
            require_commercial: Refuse a model whose license forbids commercial use or does not clearly allow it.

        Raises:
            ModelNotFoundError: No such model, or not in the cache while offline.
            HubError: The Hub refused or did not answer.
            WeightsError: Weights that are pickled, truncated, altered or of another architecture.
            ConfigError: A configuration with a fault.
            UnsupportedError: The license, with `require_commercial`.
        """
        remember_process()
        exported = backend if backend != "torch" and is_cpu(device) else "torch"
        where: dict[str, Any] = {"revision": revision, "cache_dir": cache_dir, "local_files_only": local_files_only}
        folder = hub.resolve(id_or_path, token=token, backend=exported, require_commercial=require_commercial, **where)
        ready = open_model(folder, backend=backend, device=device, dtype=dtype)
        from_hub = folder.parent.name == "snapshots" and not Path(id_or_path).expanduser().is_dir()
        return cls(ready, model_id=str(id_or_path), revision=folder.name if from_hub else None)

    def __repr__(self) -> str:
        height, width = self.towers.preprocessing.size
        where = f"cpu ({threads()} threads), {self.towers.dtype}"
        if self._ready.device != "cpu":
            from fashion_retrieval._utils.device import describe

            where = describe(self.device, self.dtype)
        where += "" if self.backend == "torch" else f", {self.backend}"
        return f"FashionModel({self.model_id!r}, {self.embedding_dim}-d, {width}x{height} px, {where})"

    def __reduce__(self) -> str:
        raise UnsupportedError("a FashionModel can't be pickled; call FashionModel.from_pretrained where it is used")

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        import torch

        return torch.device(self._ready.device)

    @property
    def dtype(self) -> torch.dtype:
        """The type that it computes in; results are float32."""
        from fashion_retrieval._utils.device import DTYPES

        return DTYPES[self.towers.dtype]

    @property
    def encoder(self) -> Encoder:
        """The encoder's modules in float32 on the CPU, with tokenizer and preprocessing, for what `towers` can't do."""
        return self._bundle.encoder

    @cached_property
    def _bundle(self) -> Bundle:
        return self._ready.bundle()

    @cached_property
    def composer_digest(self) -> str | None:
        """SHA-256 of the composer's weights; None without one. A gallery remembers it."""
        return self._ready.composer_digest()

    @property
    def segmenter(self) -> Segmenter | None:
        """What finds the garments: the model's own segmenter or, where it has none, the embedded model's."""
        with self._lock:
            if self._segmenter is None:
                self._segmenter = embedded_segmenter(hub.resolve(hub.EMBEDDED), self._ready.device)
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
        check_fork()
        source = self.config.taxonomy if taxonomy is None else taxonomy
        return self._recognizers.get(self.config, self._extras.probes, source, top_k)

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
        check_reading(max_pixels)
        recognizer, finder = self.recognizer(taxonomy, top_k), self._finder(segmenter)
        pixels = decode(read_content(image), called(image), max_pixels=max_pixels).upright()
        inside = None if boxes is None else check_boxes(boxes, pixels.width, pixels.height)
        found = recognizer.recognize([find_photo(pixels, inside, finder, image)])[0]
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
        keep_image: bool = False,
    ) -> Iterator[Recognition | Failure]:
        """Recognize many photos, batched across photos; one result a photo, in order.

        Args:
            images: Photos, read as they are needed.
            segmenter: As in `recognize`.
            taxonomy: As in `recognize`.
            top_k: As in `recognize`.
            batch_size: Photos held in memory at a time, fewer if they are large, and regions encoded at a time.
            on_error: "raise" yields what came before a photo that can't be read and raises its error; "skip" yields a
                `Failure` in its place and goes on.
            progress: Show a progress bar on stderr.
            max_pixels: As in `recognize`.
            keep_image: As in `recognize`. Without it `draw` reads the photo's file again.

        Raises:
            InputError: An argument can't be used, or without "skip" a photo.
        """
        if is_photo(images):
            raise InputError("recognize_many expects several photos, got one; put it into a list or use recognize")
        check_reading(max_pixels, batch_size, on_error)
        recognizer, finder = self.recognizer(taxonomy, top_k), self._finder(segmenter)
        options: dict[str, Any] = {"skip": on_error == "skip", "max_pixels": max_pixels, "keep_image": keep_image}
        found = recognize_photos(recognizer, finder, images, batch_size=batch_size, **options)
        return tracked(found, "recognizing", length_of(images), shown=progress)

    def fit_attribute(
        self,
        name: str,
        images: Iterable[ImageInput],
        labels: Sequence[str | None],
        *,
        boxes: Sequence[ArrayLike | None] | None = None,
        segmenter: SegmenterInput = "auto",
        taxonomy: TaxonomyInput = None,
        batch_size: int = 16,
        on_error: OnError = "skip",
        progress: bool = False,
        max_pixels: int | None = None,
    ) -> AttributeFit:
        """Learn an attribute group from your own labels: a linear probe on the frozen encoder, started from the words.

        From now on this model recognizes the group by it in place of the prompts, and `save_pretrained` writes it.
        Values without examples keep their prompts. The model's own taxonomy gets the group, or its new values.

        Args:
            name: The attribute group: one of the taxonomy or a new one.
            images: Photos of one garment each, or with it the largest.
            labels: A value for each photo: its name or one of its phrases in the taxonomy, else it is a new value. None
                is no label: the photo is left out.
            boxes: Four numbers for each photo, xyxy in pixels, around its garment, or None; None for all finds them.
            segmenter: As in `recognize`.
            taxonomy: As in `recognize`; with the group it becomes the model's own.
            batch_size: Photos held in memory and encoded at a time.
            on_error: What a photo that can't be read does: "skip" lists it in the result, "raise" raises its error.
            progress: Show a progress bar on stderr.
            max_pixels: As in `recognize`.

        Returns:
            Cross-validated scores of the probe, beside those of the prompts.

        Raises:
            InputError: Labels are not as many as photos, of one value only, or a value has fewer than 2 photos.
        """
        check_reading(max_pixels, batch_size, on_error)
        photos = listed(images, boxes)
        before = Taxonomy.load(self.config.taxonomy if taxonomy is None else taxonomy)
        values, vocabulary, new = read_labels(name, photos, labels, before)
        how: dict[str, Any] = {"skip": on_error == "skip", "batch_size": batch_size, "max_pixels": max_pixels}
        finder = self._finder(segmenter)
        found = fit_group(self.recognizer(vocabulary), name, finder, photos, values, boxes, progress=progress, **how)
        probe, fitted = found[0], replace(found[1], new_values=new)
        with self._lock:
            config = with_probe(self.config, vocabulary, probe, fitted, self.fingerprint)
            self._extras = replace(self._extras, probes={**self._extras.probes, name: probe})
            self.config = self._own_config = config
        return fitted

    def evaluate(
        self,
        images: Iterable[ImageInput],
        labels: Mapping[str, Sequence[str | None]],
        *,
        boxes: Sequence[ArrayLike | None] | None = None,
        segmenter: SegmenterInput = "auto",
        taxonomy: TaxonomyInput = None,
        batch_size: int = 16,
        on_error: OnError = "skip",
        progress: bool = False,
        max_pixels: int | None = None,
    ) -> Evaluation:
        """How well this model recognizes your own labeled photos; compare two models by what it returns of each.

        Args:
            images: Photos of one garment each, or with it the largest.
            labels: By group, "category", "color" or an attribute of the taxonomy, a label for each photo: a value's
                name or one of its phrases; None is no label. A model answers with the likeliest of all values.
            boxes: As in `fit_attribute`; so are all further arguments.

        Raises:
            InputError: A group or label is not in the taxonomy, labels are not as many as photos, none can be read.
        """
        check_reading(max_pixels, batch_size, on_error)
        photos = listed(images, boxes)
        truth = read_truth(labels, len(photos), self.recognizer(taxonomy).taxonomy)
        how: dict[str, Any] = {"skip": on_error == "skip", "batch_size": batch_size, "max_pixels": max_pixels}
        recognizer, finder = self.recognizer(truth.taxonomy, truth.top_k), self._finder(segmenter)
        return evaluate_photos(recognizer, finder, photos, truth, boxes, progress=progress, **how)

    def save_pretrained(self, folder: str | Path, *, card_id: str | None = None) -> Path:
        """Write the model folder: weights, configuration, card.

        Saving what was loaded from such a folder gives the same bytes; another layout is written as this one. The card
        tells its readers to load `card_id`, by default what this model was loaded as.
        """
        check_fork()
        folder, bundle = Path(folder), replace(self._bundle, extras=self._extras, config=self._own_config)
        from fashion_retrieval.checkpoint.folder import save
        from fashion_retrieval.hub.model_card import write_card

        write_card(save(bundle, folder), folder, model_id=card_id or self.model_id)
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
