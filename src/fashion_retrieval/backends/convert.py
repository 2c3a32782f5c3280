"""Graphs of a model for another runtime, made in a child process.

torch.export, the converters and the quantizers print, log, and replace warning filters and even builtins of the process
they run in, and keep about half a gigabyte of memory when they are done. In a child process none of this reaches the
host or its other threads. The price is the child's start: it imports torch and reads the model once more.

The child is `python -m fashion_retrieval.backends.convert TASK BACKEND ARGUMENT…`; what it prints is only shown in an
error.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from fashion_retrieval import errors
from fashion_retrieval._utils.child import run_module
from fashion_retrieval.backends.runtimes import check_packages, runtime_of
from fashion_retrieval.errors import FashionRetrievalError, UnsupportedError

_MARK = "fashion_retrieval refused: "
"""Begins the line by which the child hands an error of ours to its parent."""


def convert(source: Path, backend: str, out: Path) -> None:
    """Write the graphs of a model folder, in float32, into an existing folder."""
    check_packages(backend, quantize=False)
    _run_child("convert", backend, source, out)


def quantize(backend: str, graph: Path, samples: Path, *, convolutional: bool) -> None:
    """Replace an image graph by its int8 copy; `samples` is an .npy file of pixels, (N, 3, h, w) float32."""
    check_packages(backend, quantize=True)
    _run_child("quantize", backend, graph, samples, "cnn" if convolutional else "transformer")


def _run_child(task: str, backend: str, *arguments: Path | str) -> None:
    done = run_module(__name__, task, backend, *map(str, arguments))
    if done.returncode == 0:
        return
    lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
    for line in lines:
        if line.startswith(_MARK):
            name, _, message = line.removeprefix(_MARK).partition(": ")
            raise getattr(errors, name)(message)
    raise UnsupportedError(f"the model can't be converted to {backend} ({lines[-1]}); use backend='torch'")


def _convert(backend: str, source: str, out: str) -> None:
    from fashion_retrieval.backends.trace import trace
    from fashion_retrieval.checkpoint.folder import load

    runtime, bundle = runtime_of(backend), load(Path(source))
    for graph in trace(bundle.encoder, bundle.composer, bundle.segmenter):
        try:
            runtime.convert(graph, Path(out, f"{graph.name}{runtime.SUFFIX}"))
        except Exception as error:  # converters raise types of their own
            reason = str(error).strip().partition("\n")[0]
            refusal = f"the {graph.name} part can't be converted to {backend} ({reason}); use backend='torch'"
            raise UnsupportedError(refusal) from error


def main() -> None:
    """The child: do one task, and exit with status 1 and a marked line after an error of ours."""
    task, backend, path, other = sys.argv[1:5]
    modules: dict[str, Any] = sys.modules
    modules["openvino_telemetry"] = None  # can't be imported: OpenVINO and nncf then report to nobody
    try:
        if task == "convert":
            _convert(backend, path, other)
        else:
            samples = [{"pixels": pixels[None]} for pixels in np.load(other)]
            runtime_of(backend).quantize(Path(path), samples, convolutional=sys.argv[5] == "cnn")
    except FashionRetrievalError as error:
        sys.exit(f"{_MARK}{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
