"""Which files of a folder or a Hub repository make up a model: what is downloaded, and what is published."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from fashion_retrieval._utils.files import sha256, verify_digests
from fashion_retrieval.checkpoint.export_manifest import NAME as EXPORT_NAME
from fashion_retrieval.checkpoint.export_manifest import RUNTIMES, Export
from fashion_retrieval.config import (
    COMPOSER_WEIGHTS_NAME,
    DIMENSIONS_NAME,
    ENCODER_WEIGHTS_NAME,
    PROBES_WEIGHTS_NAME,
    PROMPTS_NAME,
    SEGMENTER_WEIGHTS_NAME,
    ModelConfig,
)
from fashion_retrieval.errors import InputError

EXTRAS = (PROBES_WEIGHTS_NAME, DIMENSIONS_NAME, PROMPTS_NAME)
"""Small files of arrays, each tied to the encoder."""
OPEN_CLIP_WEIGHTS = (ENCODER_WEIGHTS_NAME, "open_clip_pytorch_model.safetensors")
"""Names of an open_clip model's weights, the better one first; each may be in shards."""
OPEN_CLIP_PATTERNS = tuple(name.replace(".", dot) for name in OPEN_CLIP_WEIGHTS for dot in (".", "-*-of-*."))
TRANSFORMERS_WEIGHTS = ("model.safetensors", "model-*-of-*.safetensors")
TRANSFORMERS_KINDS = ("clip", "metaclip_2", "siglip", "siglip2")
"""Values of `model_type` in the config.json of models that are converted on loading."""
LAYOUTS = (
    (ENCODER_WEIGHTS_NAME, SEGMENTER_WEIGHTS_NAME, COMPOSER_WEIGHTS_NAME, *EXTRAS),
    *((pattern,) for pattern in OPEN_CLIP_PATTERNS[1:]),
    *((name,) for name in TRANSFORMERS_WEIGHTS),
)
"""File patterns of the weights, preferred layout first; the first pattern of each must match."""
NESTED = (("0_CLIPModel",), ("text_encoder", "image_encoder", "feature_extractor"))
"""Folders of models that are in parts: sentence-transformers' CLIP, and two encoders as diffusers keeps them."""
TEXTS = ("*.json", "*.txt", "README.md", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model")
"""File patterns of configuration, tokenizer and card."""
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle")

_LARGE_NAMES = ("*.safetensors", "*.model", "*.bin", "*.onnx")
_LARGE_BYTES = 10_000_000
"""What a new repository of the Hub keeps in large-file storage: these names, and every file above this size."""


@dataclass(frozen=True, slots=True)
class UploadFile:
    """One file of an upload: its name in the folder and in the repository, and its size in bytes."""

    name: str
    size: int
    sha256: str
    lfs: bool  # whether a new repository keeps it in large-file storage; another's .gitattributes may differ


def file_names(folder: Path) -> set[str]:
    """Names of the files in a folder that are not hidden, none where there is no such folder."""
    files = (path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else ()
    return {path.name for path in files if not path.name.startswith(".")}


def layout_of(names: Collection[str]) -> tuple[str, ...] | None:
    """The patterns of the weights to take among files of these names; None where there are no weights."""
    return next((layout for layout in LAYOUTS if any(fnmatch(name, layout[0]) for name in names)), None)


def nested_parts(names: Collection[str]) -> tuple[str, ...] | None:
    """The folders of a model in parts among files of these paths; None where there is none with its weights."""

    def weighty(part: str) -> bool:
        return layout_of([name.partition("/")[2] for name in names if name.startswith(f"{part}/")]) is not None

    return next((parts for parts in NESTED if all(map(weighty, parts[:2]))), None)


def nested_names(folder: Path) -> set[str]:
    """Paths of the weights one level down in a folder."""
    return {path.relative_to(folder).as_posix() for path in folder.glob("*/*.safetensors")}


def matching(names: Iterable[str], patterns: Iterable[str]) -> list[str]:
    """Names that match one of the patterns, sorted."""
    kept = list(patterns)
    return sorted(name for name in names if any(fnmatch(name, pattern) for pattern in kept))


def published_files(folder: Path) -> tuple[UploadFile, ...]:
    """The files of a model folder that are published, each the one its configuration was written for.

    An exported model in it, which `FashionModel.save_pretrained` does not write, is published with it.
    """
    names = file_names(folder)
    if ENCODER_WEIGHTS_NAME not in names:
        raise InputError(f"{folder} holds no {ENCODER_WEIGHTS_NAME}; expected a folder written by save_pretrained")
    found = tuple(_upload_file(folder, name) for name in matching(names, (*TEXTS, "*.safetensors")))
    read = {file.name: file.sha256 for file in found}
    config = ModelConfig.read(folder)
    verify_digests(folder, config.sha256 if config else {}, remedy="save the model again", known=read)
    return found + tuple(_upload_file(folder, name) for name in _exported(folder))


def _exported(folder: Path) -> Iterator[str]:
    for backend in RUNTIMES:
        if exported := Export.read(folder / backend):
            exported.verify(folder / backend)
            yield from (f"{backend}/{name}" for name in sorted((EXPORT_NAME, *exported.sha256)))


def _upload_file(folder: Path, name: str) -> UploadFile:
    size = (folder / name).stat().st_size
    large = size > _LARGE_BYTES or bool(matching([name], _LARGE_NAMES))
    return UploadFile(name, size, sha256(folder / name), lfs=large)
