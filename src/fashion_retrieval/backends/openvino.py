"""OpenVINO: traced graphs -> .xml files, int8 by nncf, and programs that compute them on the CPU."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from fashion_retrieval._utils.forks import check_fork
from fashion_retrieval._utils.optional import imported

if TYPE_CHECKING:
    from fashion_retrieval.backends.trace import Graph

EXTRA = "openvino"
PACKAGES = ("openvino",)
DTYPES = {"float32": "f32", "bfloat16": "bf16"}
COMPUTES = ("openvino",)
QUANTIZERS = ("nncf",)
SUFFIX = ".xml"
_TELEMETRY = "openvino_telemetry"
_IMPORTING = Lock()
_ITEMS_PER_STREAM, _ITEMS_PER_STREAM_CNN = 8, 2
"""A stream computes a CNN's items two at a time, so that their wide maps stay in the processor's cache."""
_HIGH_RESOLUTION = 4
"""Maps of at least 1/4 of the image's width stay float32 under bfloat16: most of a CNN's error arises there."""


class Program:
    """One graph on the CPU; the operations behind an output are compiled when that output is first asked for.

    All threads compute a small batch together. A large batch is cut into parts, which streams of few threads compute in
    parallel, so that no thread waits for the others after each operation. Each mode is compiled when it is needed.
    """

    def __init__(self, path: Path, *, dtype: str, threads: int) -> None:
        """Read an .xml file with its .bin beside it; `dtype` is of the parts in float, parts in int8 stay int8."""
        check_fork(pools=True)
        self._openvino = _silent()
        self._core = self._openvino.Core()
        self._model = self._core.read_model(path)
        self.inputs = {given.get_any_name() for given in self._model.inputs}
        self.outputs = {output.get_any_name() for output in self._model.outputs}
        self._threads = threads
        self._options = {
            "INFERENCE_PRECISION_HINT": DTYPES[dtype],
            "INFERENCE_NUM_THREADS": threads,
        }
        convolutions = sum("Convolution" in operation.get_type_name() for operation in self._model.get_ops())
        self._part = _ITEMS_PER_STREAM_CNN if convolutions > 1 else _ITEMS_PER_STREAM
        self._together: dict[str, Any] = {}
        self._streams: dict[str, Any] = {}
        self._lock = Lock()  # neither mode takes a second call while one runs

    def __call__(self, output: str, **inputs: NDArray[Any]) -> NDArray[np.float32]:
        """Inputs by name, scalars or arrays with the batch along their first axis -> one output."""
        check_fork(pools=True)
        items = max(len(value) for value in inputs.values() if value.ndim)
        with self._lock:
            if items < max(2, self._threads):
                if output not in self._together:
                    self._together[output] = self._compile(output, "LATENCY")
                result: NDArray[np.float32] = self._together[output](inputs)[0]
                return result
            if output not in self._streams:
                self._streams[output] = self._openvino.AsyncInferQueue(self._compile(output, "THROUGHPUT"))
            return self._in_parallel(output, items, inputs)

    def _compile(self, output: str, hint: str) -> Any:  # noqa: ANN401  # openvino.CompiledModel
        part = self._openvino.Model([self._model.output(output)], self._model.get_parameters())
        return self._core.compile_model(part, "CPU", self._options | {"PERFORMANCE_HINT": hint})

    def _in_parallel(self, output: str, items: int, inputs: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
        streams = self._streams[output]
        number = min(items, math.ceil(items / (self._part * len(streams))) * len(streams))
        edges = [round(place * items / number) for place in range(number + 1)]
        results: list[Any] = [None] * number

        def keep(request: Any, place: int) -> None:  # noqa: ANN401  # openvino.InferRequest
            results[place] = request.get_output_tensor(0).data.copy()

        streams.set_callback(keep)
        for place, (start, end) in enumerate(pairwise(edges)):
            part = {name: value[start:end] if value.ndim else value for name, value in inputs.items()}
            streams.start_async(part, place)
        streams.wait_all()
        return np.concatenate(results)


def convert(graph: Graph, path: Path) -> None:
    """Write a graph as float32, and mark what stays float32 in a `Program` of bfloat16 (`_HIGH_RESOLUTION`)."""
    openvino = _silent()
    model = openvino.convert_model(graph.program)
    ports, names = [*model.inputs, *model.outputs], [*graph.inputs, *graph.outputs]
    for port, name in zip(ports, names, strict=True):
        port.get_tensor().set_names({name})
    model.reshape(
        {name: openvino.PartialShape([max(size, -1) for size in shape]) for name, shape in graph.inputs.items()}
    )
    openvino.save_model(model, path, compress_to_fp16=False)
    if graph.name == "image":
        _keep_float32(path, model, graph.inputs["pixels"][-1])


def quantize(path: Path, samples: Sequence[dict[str, NDArray[Any]]], *, convolutional: bool) -> None:
    """Replace a graph by its int8 copy; activations get the widest ranges seen on the samples, each a batch of one.

    Weights use 7 of their 8 bits, or without VNNI sums of two products saturate. A CNN's first convolution, of few
    maps, stays in float: much of the error arises there.
    """
    openvino, nncf = _silent(), imported("nncf", "quantize")
    ranges = import_module("nncf.quantization.range_estimator").RangeEstimatorParametersSet.MINMAX
    advanced = nncf.AdvancedQuantizationParameters(
        overflow_fix=nncf.OverflowFix.ENABLE, activations_range_estimator_params=ranges
    )
    target = path.with_name(f"quantized{path.suffix}")
    source = openvino.Core().read_model(path)
    kinds = {operation.get_friendly_name(): operation.get_type_name() for operation in source.get_ordered_ops()}
    first = next((name for name, kind in kinds.items() if convolutional and kind == "Convolution"), None)
    model = nncf.quantize(
        source,
        nncf.Dataset(samples),
        model_type=None if convolutional else nncf.ModelType.TRANSFORMER,
        subset_size=len(samples),
        ignored_scope=nncf.IgnoredScope(names=[first]) if first else None,
        advanced_parameters=advanced,
    )
    openvino.save_model(model, target, compress_to_fp16=False)
    del model, source  # they map the old file, which is replaced now
    for suffix in (".xml", ".bin"):
        target.with_suffix(suffix).replace(path.with_suffix(suffix))


def _silent() -> ModuleType:
    """Import OpenVINO without openvino_telemetry, by which its makers are told of imports and conversions.

    It takes a stand-in of its own then. For this process nothing else changes.
    """
    modules: dict[str, Any] = sys.modules
    with _IMPORTING:
        kept = {name: module for name, module in modules.items() if name == _TELEMETRY}
        modules[_TELEMETRY] = None
        try:
            return imported("openvino", EXTRA)
        finally:
            del modules[_TELEMETRY]
            modules.update(kept)


def _keep_float32(path: Path, model: Any, width: int) -> None:  # noqa: ANN401  # openvino.Model
    """Mark the operations whose result is a map of at least 1/`_HIGH_RESOLUTION` of the image's width.

    The mark goes into the .xml file; OpenVINO's Python interface has none.
    """
    names = set()
    for operation in model.get_ordered_ops():
        shapes = [output.get_partial_shape() for output in operation.outputs()]
        widths = [shape[3] for shape in shapes if shape.rank.is_static and len(shape) == 4]
        if operation.get_type_name() != "Constant" and any(
            size.is_static and size.get_length() * _HIGH_RESOLUTION >= width for size in widths
        ):
            names.add(operation.get_friendly_name())
    tree = ElementTree.parse(path)
    for layer in tree.iter("layer"):
        if layer.get("name") in names:
            info = layer.find("rt_info")
            if info is None:
                info = ElementTree.Element("rt_info")
                layer.insert(int(layer.find("data") is not None), info)
            ElementTree.SubElement(info, "attribute", {"name": "precise", "version": "0"})
    tree.write(path)
