"""`Towers`, `Composes` and a garment finder that another runtime computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fashion_retrieval.checkpoint.export_manifest import About
from fashion_retrieval.config import SegmenterConfig
from fashion_retrieval.errors import UnsupportedError
from fashion_retrieval.models.garments import GarmentFinder
from fashion_retrieval.models.towers import Composes, Floats, Levels
from fashion_retrieval.models.zero_shot import normalized


class Program(Protocol):
    """One graph of `fashion_retrieval.backends.trace` in a runtime."""

    inputs: set[str]
    """Names of what it takes."""
    outputs: set[str]
    """Names of what it computes."""

    def __call__(self, output: str, **inputs: NDArray[Any]) -> NDArray[np.float32]:
        """Inputs by name -> one of the outputs."""
        ...


Graphs = Callable[[str], Program]
"""Gives the program of "image", "text", "composer" or "segmenter", each time the same, opened at the first."""


class ProgramTowers:
    """Towers that are programs; `tokenize` gives (b, `context_length`) token ids."""

    ahead = 0

    def __init__(
        self,
        about: About,
        *,
        fingerprint: str,
        backend: str,
        dtype: str,
        tokenize: Callable[[list[str]], NDArray[np.int64]],
        graph: Graphs,
    ) -> None:
        self.backend, self.dtype, self.fingerprint = backend, dtype, fingerprint
        self.preprocessing = about.preprocessing()
        self.embedding_dim, self.context_length = about.embedding_dim, about.context_length
        self.logit_scale = about.logit_scale
        self._causal = about.causal
        self._tokenize, self._graph = tokenize, graph
        self._lock = Lock()

    def encode_images(self, levels: Sequence[Levels]) -> Floats:
        """See `Towers`."""
        return normalized(run(self._graph("image"), "pooled", pixels=self._pixels(levels)))

    def image_tokens(self, levels: Sequence[Levels]) -> Floats:
        """See `Towers`."""
        return run(self._graph("image"), "states", pixels=self._pixels(levels))

    def encode_texts(self, texts: Sequence[str]) -> Floats:
        """See `Towers`."""
        if "states" not in self._graph("text").outputs:
            return normalized(run(self._graph("text"), "pooled", tokens=self._tokens(texts)))
        states, lengths = self.text_tokens(texts)
        return normalized(states[np.arange(len(states)), lengths - 1])

    def text_tokens(self, texts: Sequence[str]) -> tuple[Floats, NDArray[np.int64]]:
        """See `Towers`."""
        tokens = self._tokens(texts)
        return run(self._graph("text"), "states", tokens=tokens), tokens.argmax(axis=1) + 1

    def count_tokens(self, texts: Sequence[str]) -> int:
        """See `Towers`."""
        return int(np.count_nonzero(self._tokens(texts)))

    def _tokens(self, texts: Sequence[str]) -> NDArray[np.int64]:
        with self._lock:
            tokens = self._tokenize(list(texts))
        return np.ascontiguousarray(tokens[:, : int(tokens.argmax(axis=1).max()) + 1]) if self._causal else tokens

    def _pixels(self, levels: Sequence[Levels]) -> Floats:
        return np.ascontiguousarray(self.preprocessing.normalize(np.stack(levels)))


class ProgramComposer:
    """A composer that is a program; exports of 0.1 have no parts, and take them from `source`."""

    def __init__(self, graph: Graphs, source: Composes | None = None) -> None:
        self._graph, self._source = graph, source

    def __call__(self, image: Floats, text: Floats, lengths: NDArray[np.int64]) -> Floats:
        """See `Composes`."""
        given: dict[str, NDArray[Any]] = {"image": image, "text": text, "lengths": lengths}
        program = self._graph("composer")
        if "weight" in program.inputs:  # exports of 0.1 weigh the branches; one half is as trained
            given["weight"] = np.asarray(0.5, np.float32)
        return run(program, "query", **given)

    def parts(self, image: Floats, text: Floats, lengths: NDArray[np.int64]) -> tuple[Floats, Floats, Floats]:
        """See `Composes`."""
        program = self._graph("composer")
        if "gates" not in program.outputs:
            if self._source is None:
                raise UnsupportedError("this export has no composer that explains itself; export the model again")
            return self._source.parts(image, text, lengths)
        given: dict[str, NDArray[Any]] = {"image": image, "text": text, "lengths": lengths}
        kept, changed, gates = (run(program, name, **given) for name in ("kept", "changed", "gates"))
        return kept, changed, gates


class ProgramSegmenter(GarmentFinder):
    """A garment finder whose network is a program."""

    def __init__(self, config: SegmenterConfig, graph: Graphs) -> None:
        self.config, self._graph = config, graph

    def look(self, pixels: Floats) -> Floats:
        """See `GarmentFinder`."""
        shares: Floats = run(self._graph("segmenter"), "shares", pixels=np.ascontiguousarray(pixels))[0]
        return shares


def run(program: Program, output: str, **inputs: NDArray[Any]) -> Floats:
    """One of a program's outputs; an UnsupportedError where it has none of that name."""
    if output not in program.outputs:
        raise UnsupportedError(
            "token features need a vision transformer or a CNN, and a CLIP text tower; use another model"
        )
    return program(output, **inputs)
