"""ONNX Runtime: traced graphs -> .onnx files, int8, and programs that compute them on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fashion_retrieval._utils.forks import check_fork
from fashion_retrieval._utils.optional import imported

if TYPE_CHECKING:
    from fashion_retrieval.backends.trace import Graph

EXTRA = "onnx"
PACKAGES = ("onnx", "onnxruntime", "onnxscript")
COMPUTES = ("onnxruntime",)
DTYPES = ("float32",)
QUANTIZERS: tuple[str, ...] = ()  # onnxruntime quantizes
SUFFIX = ".onnx"
_ERRORS_ONLY = 3


class Program:
    """One graph on the CPU."""

    def __init__(self, path: Path, *, dtype: str, threads: int) -> None:
        """Read an .onnx file; `dtype` is "float32", the only float type of ONNX Runtime on CPUs."""
        check_fork(pools=True)
        runtime = imported("onnxruntime", EXTRA)
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = _ERRORS_ONLY
        self._session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.inputs = {given.name for given in self._session.get_inputs()}
        self.outputs = {output.name for output in self._session.get_outputs()}
        self._run_options = runtime.RunOptions()
        self._run_options.only_execute_path_to_fetches = True

    def __call__(self, output: str, **inputs: NDArray[Any]) -> NDArray[np.float32]:
        """Inputs by name -> one of the outputs, float32."""
        check_fork(pools=True)
        result: NDArray[np.float32] = self._session.run([output], inputs, self._run_options)[0]
        return result


def convert(graph: Graph, path: Path) -> None:
    """Write a graph as float32."""
    import torch

    inputs, outputs = list(graph.inputs), list(graph.outputs)
    program = torch.onnx.export(graph.program, (), dynamo=True, input_names=inputs, output_names=outputs, verbose=False)
    assert program is not None  # with dynamo it never is
    program.save(path)


def quantize(path: Path, samples: Sequence[dict[str, NDArray[Any]]], *, convolutional: bool) -> None:
    """Replace a graph by its int8 copy; samples are inputs by name, each a batch of one.

    A CNN has its convolutions quantized, with the ranges seen on the samples; a transformer its products with weights,
    which find the ranges of their inputs at each call. Weights use 7 of their 8 bits, or without VNNI sums of two
    products saturate. A CNN's first convolution, of few maps, stays in float: much of the error arises there.
    """
    quantization = imported("onnxruntime.quantization", EXTRA)
    target = path.with_name(f"quantized{path.suffix}")
    if convolutional:
        folded = path.with_name(f"folded{path.suffix}")
        quantization.quant_pre_process(path, folded, skip_symbolic_shape=True)
        nodes = imported("onnx", EXTRA).load(folded, load_external_data=False).graph.node
        quantization.quantize_static(
            folded,
            target,
            SimpleNamespace(get_next=partial(next, iter(samples), None)),  # the interface of a reader of samples
            op_types_to_quantize=["Conv", "Clip", "Relu", "Add"],
            nodes_to_exclude=[next(node.name for node in nodes if node.op_type == "Conv")],
            per_channel=True,
            reduce_range=True,
            activation_type=quantization.QuantType.QUInt8,
        )
        folded.unlink()
    else:
        kinds = ["MatMul", "Gemm"]
        quantization.quantize_dynamic(path, target, op_types_to_quantize=kinds, per_channel=True, reduce_range=True)
    target.replace(path)
