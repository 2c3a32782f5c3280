"""An encoder and a composer that another runtime computes, with the interface of those that torch computes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from fashion_retrieval.errors import UnsupportedError
from fashion_retrieval.models.composer import Composer
from fashion_retrieval.models.encoder import Encoder


class Program(Protocol):
    """One graph of `fashion_retrieval.backends.trace` in a runtime."""

    inputs: set[str]
    """Names of what it takes."""
    outputs: set[str]
    """Names of what it computes."""

    def __call__(self, output: str, **inputs: NDArray[Any]) -> NDArray[np.float32]:
        """Inputs by name -> one of the outputs."""
        ...


class CompiledEncoder(Encoder):
    """An encoder whose towers are programs.

    Tokenizer, weights, fingerprint and preprocessing are those of its source; `exact` sets the preprocessing's option.
    """

    def __init__(self, source: Encoder, *, backend: str, image: Program, text: Program, exact: bool) -> None:
        _share_state(source, self)
        self.preprocessing = replace(source.preprocessing, exact=exact)
        self.backend = backend
        self._image = image
        self._text = text

    def for_inference(self, device: torch.device, dtype: torch.dtype) -> Encoder:
        """Return itself: the runtime has placed and typed the weights already."""
        return self

    def encode_image(self, pixels: Tensor) -> Tensor:
        """(b, 3, h, w) float -> (b, d) float32, L2-normalized."""
        return functional.normalize(_run(self._image, "pooled", pixels=pixels), dim=-1)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """(b, s) int64 -> (b, d) float32, L2-normalized."""
        if "states" not in self._text.outputs:
            return functional.normalize(_run(self._text, "pooled", tokens=tokens), dim=-1)
        states, lengths = self.text_tokens(tokens)
        return functional.normalize(states[torch.arange(len(states)), lengths - 1], dim=-1)

    def image_tokens(self, pixels: Tensor) -> Tensor:
        """(b, 3, h, w) float -> (b, 1 + k, d) float32, the pooled embedding first."""
        return _run(self._image, "states", pixels=pixels)

    def text_tokens(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """(b, s) int64 -> (b, s, d) float32 and (b,) int64, the length of each text."""
        return _run(self._text, "states", tokens=tokens), tokens.argmax(dim=-1) + 1


class CompiledComposer(Composer):
    """A composer that is a program; its weights are those of its source."""

    def __init__(self, source: Composer, program: Program) -> None:
        _share_state(source, self)
        self._program = program

    def forward(self, image: Tensor, text: Tensor, lengths: Tensor) -> Tensor:
        """(b, k, d) and (b, s, d) float32 tokens, (b,) int64 lengths -> (b, d) float32, L2-normalized."""
        given = {"image": image, "text": text, "lengths": lengths}
        if "weight" in self._program.inputs:  # exports of 0.1 weigh the branches; one half is as trained
            given["weight"] = torch.tensor(0.5)
        return _run(self._program, "query", **given)


def _share_state(source: nn.Module, module: nn.Module) -> None:
    """Give a module all attributes of its source, weights included, without copying or initializing them."""
    nn.Module.__init__(module)
    vars(module).update(vars(source))


def _run(program: Program, output: str, **inputs: Tensor) -> Tensor:
    if output not in program.outputs:
        raise UnsupportedError(
            "token features need a vision transformer or a CNN, and a CLIP text tower; use another model"
        )
    typed = {name: value.float() if value.is_floating_point() else value for name, value in inputs.items()}
    arrays = {name: value.contiguous().numpy() for name, value in typed.items()}
    return torch.from_numpy(program(output, **arrays))
