"""Trace the parts of a model that another runtime computes, with dynamic batch size and text length."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from fashion_retrieval.errors import UnsupportedError
from fashion_retrieval.models.composer import Composer
from fashion_retrieval.models.encoder import Encoder

DYNAMIC = -1
Shapes = dict[str, tuple[int, ...]]
"""Input name -> shape, in the order of the arguments; a size that may vary is `DYNAMIC`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """One traced part.

    Attributes:
        name: "image", "text" or "composer".
        program: The traced module; float32, on the CPU.
        inputs: Shapes of its inputs.
        outputs: Names of its results, in order.
    """

    name: str
    program: ExportedProgram
    inputs: Shapes
    outputs: tuple[str, ...]


def trace(encoder: Encoder, composer: Composer | None) -> list[Graph]:
    """Trace the image tower, the text tower and, if there is one, the composer; all on the CPU, in eval mode.

    The image tower returns the pooled embedding and its token features, if it has any. A causal text tower takes any
    length and returns token features; another one takes a full context and returns the pooled embedding.

    Raises:
        UnsupportedError: torch.export can't trace a part.
    """
    pixels: Shapes = {"pixels": (DYNAMIC, 3, *encoder.image_size)}
    tokens = encoder.tokenize(["a"])
    image_tokens = _token_count(lambda: encoder.image_tokens(torch.zeros(1, 3, *encoder.image_size)))
    if image_tokens:
        graphs = [_trace_part("image", _Part(encoder, _image_tokens), pixels, ("pooled", "states"))]
    else:
        graphs = [_trace_part("image", _Part(encoder.clip, _pooled_image), pixels, ("pooled",))]
    if _token_count(lambda: encoder.text_tokens(tokens)[0]):
        graphs.append(_trace_part("text", _Part(encoder, _text_tokens), {"tokens": (DYNAMIC, DYNAMIC)}, ("states",)))
    else:
        context: Shapes = {"tokens": (DYNAMIC, tokens.shape[1])}
        graphs.append(_trace_part("text", _Part(encoder.clip, _pooled_text), context, ("pooled",)))
    if composer is not None:
        width = encoder.embedding_dim
        inputs: Shapes = {
            "image": (DYNAMIC, image_tokens, width),
            "text": (DYNAMIC, DYNAMIC, width),
            "lengths": (DYNAMIC,),
            "weight": (),
        }
        graphs.append(_trace_part("composer", _Part(composer, _query), inputs, ("query",)))
    return graphs


def _token_count(tokens: Callable[[], Tensor]) -> int:
    """Number of tokens a tower returns, 0 for one without token features."""
    try:
        with torch.no_grad():
            return tokens().shape[1]
    except UnsupportedError:
        return 0


class _Part(nn.Module):
    """A function of a module as a module, as torch.export needs it."""

    def __init__(self, module: nn.Module, compute: Callable[..., Any]) -> None:
        super().__init__()
        self.module = module
        self.compute = compute

    def forward(self, *inputs: Tensor) -> Any:  # noqa: ANN401  # a tensor or two
        return self.compute(self.module, *inputs)


def _image_tokens(encoder: Encoder, pixels: Tensor) -> tuple[Tensor, Tensor]:
    tokens = encoder.image_tokens(pixels)
    return tokens[:, 0], tokens


def _pooled_image(clip: nn.Module, pixels: Tensor) -> Tensor:
    pooled: Tensor = clip.encode_image(pixels)  # type: ignore[operator]
    return pooled


def _text_tokens(encoder: Encoder, tokens: Tensor) -> Tensor:
    return encoder.text_tokens(tokens)[0]


def _pooled_text(clip: nn.Module, tokens: Tensor) -> Tensor:
    pooled: Tensor = clip.encode_text(tokens)  # type: ignore[operator]
    return pooled


def _query(composer: Composer, image: Tensor, text: Tensor, lengths: Tensor, weight: Tensor) -> Tensor:
    query: Tensor = composer(image, text, lengths, text_weight=weight)  # a tensor stays an input of the graph
    return query


def _trace_part(name: str, part: _Part, inputs: Shapes, outputs: tuple[str, ...]) -> Graph:
    dynamic = [{axis: Dim.DYNAMIC for axis, size in enumerate(shape) if size == DYNAMIC} for shape in inputs.values()]
    try:
        with torch.no_grad():
            examples = tuple(_example(*item) for item in inputs.items())
            program = torch.export.export(part.eval(), examples, dynamic_shapes=(tuple(dynamic),))
    except Exception as error:  # torch.export raises nearly anything
        reason = str(error).strip().partition("\n")[0]
        raise UnsupportedError(
            f"the {name} part can't be traced by torch.export ({reason}); use backend='torch'"
        ) from error
    return Graph(name=name, program=program, inputs=inputs, outputs=outputs)


def _example(name: str, shape: tuple[int, ...]) -> Tensor:
    """Zeros for an input; torch.export takes a size of 1 for fixed, so a dynamic batch is 2 and a dynamic length 5."""
    sizes = [(2, 5)[axis] if size == DYNAMIC else size for axis, size in enumerate(shape)]
    if name == "lengths":
        return torch.full(sizes, 5)
    return torch.zeros(sizes, dtype=torch.int64 if name == "tokens" else torch.float32)
