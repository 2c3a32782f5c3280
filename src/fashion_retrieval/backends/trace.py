"""The parts of a model that another runtime computes, traced with free batch size and text length."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from fashion_retrieval._utils.optional import quiet
from fashion_retrieval.errors import UnsupportedError
from fashion_retrieval.models.composer import Composer
from fashion_retrieval.models.encoder import Encoder

FREE = -1
Shapes = dict[str, tuple[int, ...]]
"""Of the inputs by name, in the order of the arguments; a size that may vary is `FREE`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """One traced part.

    Attributes:
        name: "image", "text" or "composer".
        program: What torch.export recorded; float32, on the CPU.
        inputs: What it takes.
        outputs: Names of the results, in order.
    """

    name: str
    program: ExportedProgram
    inputs: Shapes
    outputs: tuple[str, ...]


def trace(encoder: Encoder, composer: Composer | None) -> list[Graph]:
    """Record the image tower, the text tower and, where there is one, the composer; all on the CPU, in eval mode.

    The image tower gives the pooled embedding and, where it has token features, these too. A text tower that reads
    causally takes any length and gives its tokens; another one takes a full context and gives the pooled embedding.

    Raises:
        UnsupportedError: A part that torch.export can't record.
    """
    pixels: Shapes = {"pixels": (FREE, 3, *encoder.image_size)}
    words = encoder.tokenize(["a"])
    cells = _size(lambda: encoder.image_tokens(torch.zeros(1, 3, *encoder.image_size)))
    if cells:
        graphs = [_record("image", _Part(encoder, _image_tokens), pixels, ("pooled", "states"))]
    else:
        graphs = [_record("image", _Part(encoder.clip, _pooled_image), pixels, ("pooled",))]
    if _size(lambda: encoder.text_tokens(words)[0]):
        graphs.append(_record("text", _Part(encoder, _text_tokens), {"tokens": (FREE, FREE)}, ("states",)))
    else:
        context: Shapes = {"tokens": (FREE, words.shape[1])}
        graphs.append(_record("text", _Part(encoder.clip, _pooled_text), context, ("pooled",)))
    if composer is not None:
        width = encoder.embedding_dim
        inputs: Shapes = {"image": (FREE, cells, width), "text": (FREE, FREE, width), "lengths": (FREE,), "weight": ()}
        graphs.append(_record("composer", _Part(composer, _query), inputs, ("query",)))
    return graphs


def _size(tokens: Callable[[], Tensor]) -> int:
    """How many tokens a tower gives, 0 for one without token features."""
    try:
        with torch.no_grad():
            return tokens().shape[1]
    except UnsupportedError:
        return 0


class _Part(nn.Module):
    """A function of a module, as a module."""

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


def _record(name: str, part: _Part, inputs: Shapes, outputs: tuple[str, ...]) -> Graph:
    free = [{axis: Dim.DYNAMIC for axis, size in enumerate(shape) if size == FREE} for shape in inputs.values()]
    try:
        with torch.no_grad(), quiet():
            examples = tuple(_example(*item) for item in inputs.items())
            program = torch.export.export(part.eval(), examples, dynamic_shapes=(tuple(free),))
    except Exception as error:  # torch.export raises nearly anything
        reason = str(error).strip().partition("\n")[0]
        raise UnsupportedError(
            f"the {name} part can't be recorded by torch.export ({reason}); use backend='torch'"
        ) from error
    return Graph(name=name, program=program, inputs=inputs, outputs=outputs)


def _example(name: str, shape: tuple[int, ...]) -> Tensor:
    """Zeros for an input; a free batch is 2 and a free length 5, for a size of 1 would be taken for fixed."""
    sizes = [(2, 5)[axis] if size == FREE else size for axis, size in enumerate(shape)]
    if name == "lengths":
        return torch.full(sizes, 5)
    return torch.zeros(sizes, dtype=torch.int64 if name == "tokens" else torch.float32)
