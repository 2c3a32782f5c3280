"""One photo at a time: what a call costs beside the bare forward passes inside it, on tensors that are ready."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import contenders, material
from benchmarks.rounds import interleave, paired
from fashion_retrieval import FashionModel
from fashion_retrieval.models.torch_towers import TorchComposer

COLORS = "black white grey red orange yellow green blue purple pink brown beige navy cyan teal maroon gold silver olive"
LABELS = [f"a photo of {color} {noun}" for noun in ("dress", "shirt", "skirt", "jacket") for color in COLORS.split()]
"""76 labels."""

Passes = list[Callable[[], object]]


@contextmanager
def recorded(*methods: tuple[Any, str]) -> Iterator[Passes]:
    """Forward passes made through these methods of objects, to be run again as they were, with the same tensors."""
    passes: Passes = []

    def watch(owner: Any, name: str) -> Callable[[], None]:  # noqa: ANN401  # any object with methods
        own = getattr(owner, name)

        def run(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  # as the method it stands for
            device, enabled = "cpu", torch.is_autocast_enabled("cpu")
            context = partial(torch.autocast, device, dtype=torch.get_autocast_dtype(device), enabled=enabled)
            passes.append(partial(_again, context, partial(own, *args, **kwargs)))
            return own(*args, **kwargs)

        setattr(owner, name, run)
        return partial(delattr, owner, name)

    with ExitStack() as stack:
        for owner, name in methods:
            stack.callback(watch(owner, name))
        yield passes


def _again(context: Callable[[], torch.autocast], call: Callable[[], object]) -> object:
    with torch.inference_mode(), context():
        return call()


def measure(cache: Path, *, count: int, rounds: int) -> dict[str, Any]:
    """How many times its bare forward passes each call takes: the median over photos and rounds, 1 is the limit.

    `recognize` is of street photos, from the file; `compose` of a cached reference and a new text each time; `labels`
    is encoding a photo and telling it from 76 labels that were seen before, beside encoding it alone.
    """
    model = FashionModel.from_pretrained("compact", device="cpu", backend="torch")
    folder = material.PACK / "street"
    files = sorted(folder.rglob("*.jpg"))[:count] if folder.is_dir() else material.photos(count, cache)[0]
    report: dict[str, Any] = {
        "photos": "street" if folder.is_dir() else "drawn",
        "count": len(files),
        "rounds": rounds,
        "dtype": str(model.dtype).removeprefix("torch."),
    }
    report["recognize"] = _beside(_recognize(model, files), rounds, len(files), "recognize")
    report["compose"] = _beside(_compose(model, files), rounds, len(files), "compose")
    report["labels"] = _beside(_labels(model, files), rounds, len(files), "labels")
    return report


def _beside(
    pair: tuple[Callable[[], object], Callable[[], object]], rounds: int, count: int, label: str
) -> dict[str, Any]:
    call, bare = pair
    seconds = interleave({"call": call, "bare": bare}, rounds, label=label)
    bare_alone, whole = paired(seconds, "bare", "call"), paired(seconds, "call", "bare")
    return {
        "call_ms": whole.milliseconds(count),
        "bare_ms": bare_alone.milliseconds(count),
        "times_bare": bare_alone.ratio(),
    }


def _recognize(model: FashionModel, files: list[Path]) -> tuple[Callable[[], object], Callable[[], object]]:
    with recorded((model.segmenter, "forward"), (contenders.modules(model), "encode_image")) as passes:
        for file in files:
            model.recognize(file)
    return lambda: [model.recognize(file) for file in files], lambda: [run() for run in passes]


def _compose(model: FashionModel, files: list[Path]) -> tuple[Callable[[], object], Callable[[], object]]:
    references = model.reference(files)
    texts = [f"in {color} with long sleeves" for color in COLORS.split()]
    pairs = [(reference, texts[number % len(texts)]) for number, reference in enumerate(references)]

    def call() -> object:
        return [model.compose(reference, text) for reference, text in pairs]

    composer = model._composition.composer
    assert isinstance(composer, TorchComposer)
    with recorded((contenders.modules(model), "text_tokens"), (composer.composer, "forward")) as passes:
        call()
    return call, lambda: [run() for run in passes]


def _labels(model: FashionModel, files: list[Path]) -> tuple[Callable[[], object], Callable[[], object]]:
    def call() -> object:
        return [model.encode(images=file) @ model.encode(texts=LABELS).T for file in files]

    return call, lambda: [model.encode(images=file) for file in files]
