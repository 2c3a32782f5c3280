"""export.json: what an exported model is, which weights it was made from, and how near it comes to them."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import Field, with_config

from fashion_retrieval._utils.files import read_object, verify_digests, write_atomically
from fashion_retrieval._utils.validation import STRICT, one_of, validate
from fashion_retrieval.config import Count, Digest, FileName, Positive
from fashion_retrieval.errors import ConfigError
from fashion_retrieval.images.preprocess import Preprocessing

NAME = "export.json"
RUNTIMES = ("openvino", "onnx")
_COMPUTE = {"openvino": "openvino", "onnx": "onnxruntime"}
PRECISIONS = ("fp32", "bf16", "int8")  # bf16 where the CPU has it; int8 in the image tower's products
_SCHEMA_VERSION = 1
_REMEDY = "export the model again"


Channels = Annotated[tuple[float, float, float], Field(description="3 numbers")]


@with_config(STRICT)
@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What inference has to know of an encoder beside its graphs."""

    embedding_dim: Count
    context_length: Count
    logit_scale: Positive
    causal: bool  # what follows the end of a text changes nothing
    size: Annotated[tuple[Count, Count], Field(description="[height, width] in pixels, whole numbers above 0")]
    mean: Channels
    std: Channels
    interpolation: str
    resize_mode: str
    fill: Annotated[int, Field(ge=0, le=255, description="a whole number from 0 to 255")]

    OF_PHOTOS: ClassVar = ("size", "mean", "std", "interpolation", "resize_mode", "fill")

    def preprocessing(self) -> Preprocessing:
        """By Pillow, so that it needs no torch and is the same everywhere."""
        return Preprocessing(**{name: getattr(self, name) for name in self.OF_PHOTOS}, exact=True)


@with_config(STRICT)
@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """An exported model: what it was made from (the encoder's fingerprint, digests of the rest) and how near it is.

    `default` says whether `backend="auto"` may take it: it passed the accuracy check, whose metrics are `parity`. Where
    the files beside it are still its `sources`, it is opened by what it says `about` them, without torch.
    """

    schema_version: int = _SCHEMA_VERSION
    backend: Annotated[str, one_of(RUNTIMES)]
    precision: Annotated[str, one_of(PRECISIONS)]
    default: bool = False
    encoder: Digest
    composer: Annotated[Digest | None, Field(description="64 lower-case hex digits or null")]
    segmenter: Annotated[Digest | None, Field(description="64 lower-case hex digits or null")] = None
    about: About | None = None  # of a model that needs torch for its texts, none
    sources: dict[FileName, Digest] = field(default_factory=dict)
    sha256: Annotated[dict[FileName, Digest], Field(min_length=1, description="a sha256 for each file name")]
    versions: dict[str, str] = field(default_factory=dict)
    parity: dict[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """What lies in a backend's folder; None where nothing was exported, a ConfigError for a file with faults."""
        path = folder / NAME
        if not path.is_file():
            return None
        data = read_object(path, remedy=_REMEDY)
        if (version := data.get("schema_version")) != _SCHEMA_VERSION:
            raise ConfigError(f"{path} has schema_version {version!r}, expected {_SCHEMA_VERSION}; {_REMEDY}")
        try:
            return validate(cls, data, str(path), ConfigError)
        except ConfigError as error:
            raise ConfigError(f"{error}; {_REMEDY}") from None

    def write(self, folder: Path) -> None:
        """Write it beside the graphs."""
        text = json.dumps(dataclasses.asdict(self), indent=2, sort_keys=True, allow_nan=False) + "\n"
        with write_atomically(folder / NAME) as path:
            path.write_text(text, encoding="utf-8")

    def verify(self, folder: Path) -> None:
        """Compare the graphs' files with their digests."""
        verify_digests(folder, self.sha256, remedy=_REMEDY)


def choose(folder: Path, backend: str, *, fetched: bool = False) -> str | None:
    """The backend whose exported model is taken in a model's folder, None for none; its graphs need not be there yet.

    "auto" is the first that passed the accuracy check and whose runtime is installed; once it is `fetched`, one of
    whose graphs nothing is there was left on the Hub and does not count.
    """
    for name in RUNTIMES if backend == "auto" else (backend,):
        exported = Export.read(folder / name)
        left = fetched and exported and not any((folder / name / graph).is_file() for graph in exported.sha256)
        if exported and (backend != "auto" or (exported.default and find_spec(_COMPUTE[name]) and not left)):
            return name
    return None
