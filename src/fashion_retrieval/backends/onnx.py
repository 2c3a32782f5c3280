"""ONNX Runtime: traced graphs -> .onnx files, int8, and programs that compute them on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from fashion_retrieval._utils.optional import imported, quiet

if TYPE_CHECKING:
    from fashion_retrieval.backends.trace import Graph

EXTRA = "onnx"
PACKAGES = ("onnx", "onnxruntime", "onnxscript")
QUANTISERS: tuple[str, ...] = ()
SUFFIX = ".onnx"


class Program:
    """One graph on the CPU."""

    def __init__(self, path: Path, *, dtype: str, threads: int) -> None:
        """Read an .onnx file; `dtype` is "float32", what ONNX Runtime computes in on CPUs, beside int8."""
        runtime = imported("onnxruntime", EXTRA)
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self._session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._shortest = runtime.RunOptions()
        self._shortest.only_execute_path_to_fetches = True

    @property
    def outputs(self) -> set[str]:
        """Names of what it computes."""
        return {output.name for output in self._session.get_outputs()}

    def __call__(self, output: str, **inputs: NDArray[Any]) -> NDArray[np.float32]:
        """Inputs by name -> one of the outputs, float32."""
        result: NDArray[np.float32] = self._session.run([output], inputs, self._shortest)[0]
        return result


def require(*, quantize: bool) -> None:
    """Raise MissingExtraError unless what converts is installed; it also quantizes."""
    for package in PACKAGES:
        imported(package, EXTRA)


def convert(graph: Graph, path: Path) -> None:
    """Write a graph as float32."""
    inputs, outputs = list(graph.inputs), list(graph.outputs)
    with quiet():
        program = torch.onnx.export(graph.program, (), dynamo=True, input_names=inputs, output_names=outputs)
        assert program is not None  # with dynamo it never is
        program.save(path)


def quantize(path: Path, samples: Sequence[dict[str, NDArray[Any]]], *, attends: bool) -> None:
    """Replace a graph by its int8 copy.

    Args:
        path: An .onnx file.
        samples: Inputs by name, each a batch of one.
        attends: With attention, matrix products with weights are quantized and find the range of what they multiply at
            each call; without, convolutions are, with the ranges seen on the samples.
    """
    quantization = imported("onnxruntime.quantization", EXTRA)
    target = path.with_name(f"quantized{path.suffix}")
    with quiet():
        if attends:
            quantization.quantize_dynamic(path, target, op_types_to_quantize=["MatMul", "Gemm"], per_channel=True)
        else:
            folded = path.with_name(f"folded{path.suffix}")
            quantization.quant_pre_process(path, folded, skip_symbolic_shape=True)
            ranges = _Samples(samples)
            quantization.quantize_static(
                folded,
                target,
                ranges,
                op_types_to_quantize=["Conv", "Clip", "Relu", "Add"],
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
            )
            folded.unlink()
    target.replace(path)


class _Samples:
    """What onnxruntime reads the samples of a calibration through."""

    def __init__(self, samples: Sequence[dict[str, NDArray[Any]]]) -> None:
        self._rest = iter(samples)

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        """The next sample, None after the last."""
        return next(self._rest, None)
