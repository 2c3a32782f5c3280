"""OpenVINO: traced graphs -> .xml files, int8 by nncf, and programs that compute them on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from fashion_retrieval._extras import imported, quiet

if TYPE_CHECKING:
    from fashion_retrieval._graphs import Graph

EXTRA = "openvino"
PACKAGES = ("openvino",)
QUANTISERS = ("nncf",)
SUFFIX = ".xml"
_FINE = 4
"""Maps of at least this part of the photo's width stay float32 under bfloat16: most of a CNN's error arises there."""


def require(*, quantise: bool) -> None:
    """Raise MissingExtraError unless what converts, and for int8 what quantises, is installed."""
    imported("openvino", EXTRA)
    if quantise:
        imported("nncf", "quantise")


class Program:
    """One graph on the CPU; what leads to an output is compiled when that output is first asked for."""

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
        self._options = {
            "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[dtype],
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
        }
        self._compiled: dict[str, Any] = {}
        self._lock = Lock()  # a compiled model refuses a second call while one runs

    @property
    def outputs(self) -> set[str]:
        """Names of what it computes."""
        return {output.get_any_name() for output in self._model.outputs}

    def __call__(self, output: str, **inputs: NDArray[Any]) -> NDArray[np.float32]:
        """Inputs by name -> one of the outputs, float32."""
        with self._lock:
            if output not in self._compiled:
                part = self._openvino.Model([self._model.output(output)], self._model.get_parameters())
                self._compiled[output] = self._core.compile_model(part, "CPU", self._options)
            result: NDArray[np.float32] = self._compiled[output](inputs)[0]
        return result


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


def quantise(path: Path, samples: Sequence[dict[str, NDArray[Any]]], *, attends: bool) -> None:
    """Replace a graph by its int8 copy: weights, and activations with the widest ranges seen on samples.

    All 8 bits of the weights are used, which CPUs with VNNI multiply without overflow.

    Args:
        path: An .xml file.
        samples: Inputs by name, each a batch of one.
        attends: Whether the graph has attention, whose products need ranges of their own.
    """
    openvino, nncf = imported("openvino", EXTRA), imported("nncf", "quantise")
    ranges = import_module("nncf.quantization.range_estimator").RangeEstimatorParametersSet.MINMAX
    advanced = nncf.AdvancedQuantizationParameters(
        overflow_fix=nncf.OverflowFix.DISABLE, activations_range_estimator_params=ranges
    )
    kind = nncf.ModelType.TRANSFORMER if attends else None
    target = path.with_name(f"quantised{path.suffix}")
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
