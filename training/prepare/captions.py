"""Captions of DeepFashion's photos by BLIP: the texts of the paper's image-text retrieval."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

import torch
from PIL import Image
from transformers import BlipForConditionalGeneration, BlipProcessor

from fashion_retrieval._utils.progress import tracked
from fashion_retrieval.errors import InputError, ModelNotFoundError, WeightsError
from training.engine.files import LineFile
from training.prepare.garments import Garment, load_garment

MODEL = "Salesforce/blip-image-captioning-base"


@dataclass(frozen=True, slots=True, kw_only=True)
class Beam:
    """Deterministic beam search, with BLIP's own lengths."""

    num_beams: int = 3
    min_new_tokens: int = 5
    max_new_tokens: int = 20


@dataclass(frozen=True, slots=True)
class Captioner:
    """BLIP with its processor."""

    model: Any  # transformers' annotations are not complete
    processor: Any
    beam: Beam = field(default_factory=Beam)

    @classmethod
    def from_pretrained(
        cls, id_or_path: str, *, revision: str | None = None, device: str = "auto", beam: Beam | None = None
    ) -> Captioner:
        """Load BLIP from a folder or the Hub, completely and from safetensors."""
        try:
            kind: Any = BlipForConditionalGeneration
            processing: Any = BlipProcessor
            model, loading = kind.from_pretrained(
                id_or_path, revision=revision, use_safetensors=True, output_loading_info=True
            )
            processor = processing.from_pretrained(id_or_path, revision=revision)
        except (OSError, ValueError) as error:
            remedy = f"use {MODEL}, or make safetensors of a pickle with `fashion-retrieval models convert FOLDER`"
            raise ModelNotFoundError(f"{id_or_path} can't be loaded as BLIP ({error}); {remedy}") from error
        missing = sorted(loading["missing_keys"])
        if missing:
            raise WeightsError(f"{id_or_path} lacks {len(missing)} tensors, the first {missing[0]}; use {MODEL}")
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        return cls(model.eval().to(device), processor, beam or Beam())

    @torch.inference_mode()
    def caption(self, images: Sequence[Image.Image]) -> list[str]:
        """One text for each RGB photo."""
        pixels = self.processor(images=list(images), return_tensors="pt")["pixel_values"].to(self.model.device)
        tokens = self.model.generate(pixels, do_sample=False, **asdict(self.beam))
        return [text.strip() for text in self.processor.batch_decode(tokens, skip_special_tokens=True)]


def caption_settings(model: str, beam: Beam, view: str, revision: str | None = None) -> dict[str, Any]:
    """The file's first line."""
    return {"kind": "captions", "model": model, "revision": revision, "view": view, **asdict(beam)}


def prepare_captions(
    garments: Sequence[Garment], captioner: Captioner, lines: LineFile, *, view: str, batch_size: int
) -> list[tuple[str, str]]:
    """Add the missing captions, `{"id": …, "caption": …}`; each batch is on the disk before the next one starts.

    `view` is "photo", or "crop" for the garment's box. Returns id and reason of the photos that can't be read or get an
    empty caption.
    """
    todo = [garment for garment in garments if garment.id not in lines.done]
    failures: list[tuple[str, str]] = []
    loaded = _load(tracked(todo, "captions", len(todo), shown=True), view, failures)
    while batch := list(islice(loaded, batch_size)):
        texts = captioner.caption([image for _, image in batch])
        named = [(name, text) for (name, _), text in zip(batch, texts, strict=True)]
        failures += [(name, "empty caption") for name, text in named if not text]
        lines.append([{"id": name, "caption": text} for name, text in named if text])
    return failures


def _load(garments: Iterable[Garment], view: str, failures: list[tuple[str, str]]) -> Iterator[tuple[str, Image.Image]]:
    """Id and image of the photos that can be read; the others go to the failures."""
    for garment in garments:
        try:
            image, box = load_garment(garment)
        except InputError as error:
            failures.append((garment.id, str(error)))
        else:
            yield garment.id, image.crop(box) if view == "crop" else image
