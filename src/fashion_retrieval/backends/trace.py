"""Trace the parts of a model that another runtime computes, with dynamic batch size and text length."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from open_clip.hf_model import HFTextEncoder
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from fashion_retrieval.errors import UnsupportedError
from fashion_retrieval.models.composer import Composer
from fashion_retrieval.models.encoder import Encoder
from fashion_retrieval.models.light import PyramidEfficientNetLite
from fashion_retrieval.models.segmenter import GarmentSegmenter

DYNAMIC, STRIDES = -1, -32
Shapes = dict[str, tuple[int, ...]]
"""Input name -> shape, in the order of the arguments; a size that may vary is `DYNAMIC`, of whole strides `STRIDES`."""
_MOST_STRIDES = 512


class Graph(NamedTuple):
    """One traced part, float32 on the CPU: "image", "text", "composer" or "segmenter", and its results' names."""

    name: str
    program: ExportedProgram
    inputs: Shapes
    outputs: tuple[str, ...]


def trace(encoder: Encoder, composer: Composer | None, segmenter: GarmentSegmenter | None) -> list[Graph]:
    """Trace image tower, text tower and, where there are some, composer and segmenter; on the CPU, in eval mode.

    A segmenter on another backbone than the light one is left to torch: its padding can't be traced for any size.

    The image tower returns the pooled embedding and its token features, if it has any. A causal text tower takes any
    length and returns token features; another one takes a full context and returns the pooled embedding.
    """

    def image_tokens(pixels: Tensor) -> tuple[Tensor, Tensor]:
        states = encoder.image_tokens(pixels)
        return states[:, 0], states

    def text_tokens(tokens: Tensor) -> Tensor:
        return encoder.text_tokens(tokens)[0]

    def composed(image: Tensor, text: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        assert composer is not None  # it is traced only then
        parts = composer.parts(image, text, lengths)
        return (parts.query, *parts)

    pixels: Shapes = {"pixels": (DYNAMIC, 3, *encoder.image_size)}
    context = encoder.tokenize(["a"])
    count, clip = _token_count(encoder.image_tokens, torch.zeros(1, 3, *encoder.image_size)), encoder.clip
    whole: Any = clip  # the light one has a causal tower
    if count:
        graphs = [trace_part("image", encoder, image_tokens, pixels, ("pooled", "states"))]
    else:
        graphs = [trace_part("image", clip, clip.encode_image, pixels, ("pooled",))]
    if _token_count(text_tokens, context):
        graphs.append(trace_part("text", encoder, text_tokens, {"tokens": (DYNAMIC, DYNAMIC)}, ("states",)))
    else:
        if isinstance(tower := getattr(clip, "text", None), HFTextEncoder):
            tower.transformer.set_attn_implementation("eager")  # torch's own attention of mT5 has no ONNX form
        tokens: Shapes = {"tokens": (DYNAMIC, context.shape[1])}
        graphs.append(trace_part("text", clip, whole.encode_text, tokens, ("pooled",)))
    if composer is not None:
        image, text = (DYNAMIC, count, encoder.embedding_dim), (DYNAMIC, DYNAMIC, encoder.embedding_dim)
        inputs: Shapes = {"image": image, "text": text, "lengths": (DYNAMIC,)}
        graphs.append(trace_part("composer", composer, composed, inputs, ("query", "kept", "changed", "gates")))
    if segmenter is not None and isinstance(segmenter.backbone, PyramidEfficientNetLite):
        seen: Shapes = {"pixels": (1, 3, STRIDES, STRIDES)}
        graphs.append(trace_part("segmenter", segmenter, segmenter.shares, seen, ("shares",)))
    return graphs


def trace_part(
    name: str, module: nn.Module, compute: Callable[..., Any], inputs: Shapes, outputs: tuple[str, ...]
) -> Graph:
    """Trace a function of tensors that uses a module's weights; UnsupportedError if torch.export can't."""
    dynamic = [{axis: _dim(axis, size) for axis, size in enumerate(shape) if size < 0} for shape in inputs.values()]
    try:
        with torch.no_grad():
            examples = tuple(_example(*item) for item in inputs.items())
            part = _Part(module, compute).eval()
            program = torch.export.export(part, examples, dynamic_shapes=(tuple(dynamic),))
    except Exception as error:  # torch.export raises nearly anything
        reason = str(error).strip().partition("\n")[0]
        refusal = f"the {name} part can't be traced by torch.export ({reason}); use backend='torch'"
        raise UnsupportedError(refusal) from error
    return Graph(name, program, inputs, outputs)


class _Part(nn.Module):
    """A function that uses a module's weights as a module, as torch.export needs it."""

    def __init__(self, module: nn.Module, compute: Callable[..., Any]) -> None:
        super().__init__()
        self.module = module
        self.compute = compute

    def forward(self, *inputs: Tensor) -> Any:  # noqa: ANN401  # a tensor or two
        return self.compute(*inputs)


def _token_count(compute: Callable[[Tensor], Tensor], example: Tensor) -> int:
    """Number of tokens a tower returns, 0 for one without token features."""
    try:
        with torch.no_grad():
            return compute(example).shape[1]
    except UnsupportedError:
        return 0


def _dim(axis: int, size: int) -> Any:  # noqa: ANN401  # torch.export's dimension
    return Dim.DYNAMIC if size == DYNAMIC else -STRIDES * Dim(f"strides_{axis}", min=1, max=_MOST_STRIDES)


def _example(name: str, shape: tuple[int, ...]) -> Tensor:
    """Zeros for an input; torch.export takes a size of 1 for fixed, so a dynamic batch is 2 and a dynamic length 5."""
    sizes = [
        (2, 5)[axis] if size == DYNAMIC else abs(size) * (axis if size < 0 else 1) for axis, size in enumerate(shape)
    ]
    if name == "lengths":
        return torch.full(sizes, 5)
    return torch.zeros(sizes, dtype=torch.int64 if name == "tokens" else torch.float32)
