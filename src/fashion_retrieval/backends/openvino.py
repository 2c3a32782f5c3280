"""OpenVINO: traced graphs -> .xml files, int8 by nncf, and programs that compute them on the CPU."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from fashion_retrieval._utils.optional import imported, quiet

if TYPE_CHECKING:
    from fashion_retrieval.backends.trace import Graph

EXTRA = "openvino"
PACKAGES = ("openvino",)
QUANTISERS = ("nncf",)
SUFFIX = ".xml"
_SEVERAL, _FEW = 8, 2
"""Items that a stream computes at a time, and of a CNN, whose wide maps then stay in the processor's cache."""
_FINE = 4
"""Maps of at least this part of the photo's width stay float32 under bfloat16: most of a CNN's error arises there."""


def require(*, quantize: bool) -> None:
    """Raise MissingExtraError unless what converts, and for int8 what quantizes, is installed."""
    imported("openvino", EXTRA)
    if quantize:
        imported("nncf", "quantize")


class Program:
    """One graph on the CPU; what leads to an output is compiled when that output is first asked for.

    Few items are computed by all threads together. Many are cut into parts, which streams of few threads compute side
    by side, so that none waits for another after each operation. Either way is compiled once it is needed.
    """

    def __init__(self, path: Path, *, dtype: str, threads: int) -> None:
        """Read a file.

        Args:
            path: An .xml file with its .bin beside it.
            dtype: "float32" or "bfloat16": what float products are computed in; int8 parts stay int8.
            threads: Of one call.
        """
        self._openvino = imported("openvino", EXTRA)
        self._core = self._openvino.Core()
        self._model = self._core.read_model(path)
        self._threads = threads
        self._options = {
            "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[dtype],
            "INFERENCE_NUM_THREADS": threads,
        }
        self._part = _FEW if _convolutions(self._model) > 1 else _SEVERAL
        self._together: dict[str, Any] = {}
        self._streams: dict[str, Any] = {}
        self._lock = Lock()  # neither way takes a second call while one runs

    @property
    def outputs(self) -> set[str]:
        """Names of what it computes."""
        return {output.get_any_name() for output in self._model.outputs}

    def __call__(self, output: str, **inputs: NDArray[Any]) -> NDArray[np.float32]:
        """Inputs by name, arrays with the items of a batch along their first axis or single numbers -> one output."""
        items = max(len(value) for value in inputs.values() if value.ndim)
        with self._lock:
            if items < max(2, self._threads):
                if output not in self._together:
                    self._together[output] = self._compile(output, "LATENCY")
                result: NDArray[np.float32] = self._together[output](inputs)[0]
                return result
            if output not in self._streams:
                self._streams[output] = self._openvino.AsyncInferQueue(self._compile(output, "THROUGHPUT"))
            return self._side_by_side(self._streams[output], items, inputs)

    def _compile(self, output: str, hint: str) -> Any:  # noqa: ANN401  # openvino.CompiledModel
        part = self._openvino.Model([self._model.output(output)], self._model.get_parameters())
        return self._core.compile_model(part, "CPU", self._options | {"PERFORMANCE_HINT": hint})

    def _side_by_side(
        self,
        streams: Any,  # noqa: ANN401  # openvino.AsyncInferQueue
        items: int,
        inputs: dict[str, NDArray[Any]],
    ) -> NDArray[np.float32]:
        number = min(items, math.ceil(items / (self._part * len(streams))) * len(streams))
        cuts = [round(place * items / number) for place in range(number + 1)]
        results: list[Any] = [None] * number

        def keep(request: Any, place: int) -> None:  # noqa: ANN401  # openvino.InferRequest
            results[place] = request.get_output_tensor(0).data.copy()

        streams.set_callback(keep)
        for place, (start, end) in enumerate(pairwise(cuts)):
            part = {name: value[start:end] if value.ndim else value for name, value in inputs.items()}
            streams.start_async(part, place)
        streams.wait_all()
        return np.concatenate(results)


def convert(graph: Graph, path: Path) -> None:
    """Write a graph as float32, with marks on what stays float32 in a `Program` of bfloat16 (`_FINE`)."""
    openvino = imported("openvino", EXTRA)
    with quiet():
        model = openvino.convert_model(graph.program)
    for port, name in zip(model.inputs, graph.inputs, strict=True):
        port.get_tensor().set_names({name})
    for port, name in zip(model.outputs, graph.outputs, strict=True):
        port.get_tensor().set_names({name})
    model.reshape({name: openvino.PartialShape(list(shape)) for name, shape in graph.inputs.items()})
    openvino.save_model(model, path, compress_to_fp16=False)
    if graph.name == "image":
        _keep_precise(path, _fine_maps(model, graph.inputs["pixels"][-1]))


def quantize(path: Path, samples: Sequence[dict[str, NDArray[Any]]], *, attends: bool) -> None:
    """Replace a graph by its int8 copy: weights, and activations with the widest ranges seen on samples.

    All 8 bits of the weights are used, which CPUs with VNNI multiply without overflow.

    Args:
        path: An .xml file.
        samples: Inputs by name, each a batch of one.
        attends: Whether the graph has attention, whose products need ranges of their own.
    """
    openvino, nncf = imported("openvino", EXTRA), imported("nncf", "quantize")
    ranges = import_module("nncf.quantization.range_estimator").RangeEstimatorParametersSet.MINMAX
    advanced = nncf.AdvancedQuantizationParameters(
        overflow_fix=nncf.OverflowFix.DISABLE, activations_range_estimator_params=ranges
    )
    kind = nncf.ModelType.TRANSFORMER if attends else None
    target = path.with_name(f"quantized{path.suffix}")
    with quiet():
        model = nncf.quantize(
            openvino.Core().read_model(path),
            nncf.Dataset(samples),
            model_type=kind,
            subset_size=len(samples),
            advanced_parameters=advanced,
        )
        openvino.save_model(model, target, compress_to_fp16=False)
    del model  # it reads the old file
    for suffix in (".xml", ".bin"):
        target.with_suffix(suffix).replace(path.with_suffix(suffix))


def _convolutions(model: Any) -> int:  # noqa: ANN401  # openvino.Model
    return sum("Convolution" in operation.get_type_name() for operation in model.get_ops())


def _fine_maps(model: Any, width: int) -> set[str]:  # noqa: ANN401  # openvino.Model
    """Names of the operations whose result is a map of at least a `_FINE`-th of the photo's width."""
    names = set()
    for operation in model.get_ordered_ops():
        shapes = [output.get_partial_shape() for output in operation.outputs()]
        sizes = [shape[3] for shape in shapes if shape.rank.is_static and len(shape) == 4]
        if operation.get_type_name() != "Constant" and any(
            size.is_static and size.get_length() * _FINE >= width for size in sizes
        ):
            names.add(operation.get_friendly_name())
    return names


def _keep_precise(path: Path, names: set[str]) -> None:
    """Mark operations of an .xml file as to be computed in float32; there is no such mark in the Python interface."""
    tree = ElementTree.parse(path)
    for layer in tree.iter("layer"):
        if layer.get("name") in names:
            info = layer.find("rt_info")
            if info is None:
                info = ElementTree.Element("rt_info")
                layer.insert(int(layer.find("data") is not None), info)
            ElementTree.SubElement(info, "attribute", {"name": "precise", "version": "0"})
    tree.write(path)
