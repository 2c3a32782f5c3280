"""Which module computes a backend, and in which dtypes."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from fashion_retrieval._utils import cpu
from fashion_retrieval._utils.optional import check_installed
from fashion_retrieval.errors import InputError


def runtime_of(backend: str) -> Any:  # noqa: ANN401  # a module
    """`fashion_retrieval.backends.openvino` or `.onnx`; both have the same functions and constants."""
    return import_module(f"fashion_retrieval.backends.{backend}")


def check_packages(backend: str, *, quantize: bool) -> None:
    """Raise MissingExtraError unless the packages that convert and, for int8, quantize are installed."""
    runtime = runtime_of(backend)
    for package in runtime.PACKAGES:
        check_installed(package, runtime.EXTRA)
    for package in runtime.QUANTIZERS if quantize else ():
        check_installed(package, "quantize")


def resolve_backend_dtype(backend: str, precision: str, dtype: str) -> str:
    """The dtype that a runtime computes graphs of a precision in; "auto" is that precision, and int8 stays int8."""
    if dtype == "auto" and (precision == "fp32" or backend == "onnx"):
        return "float32"
    name = str(dtype).removeprefix("torch.")
    if name == "auto":
        name = "bfloat16" if cpu.multiplies_bfloat16() else "float32"
    elif name == "bfloat16" and not cpu.multiplies_bfloat16():
        needed = "a processor with AVX512-BF16 or AMX"
        raise InputError(f"backend {backend!r} needs {needed} for bfloat16, this one has neither; use dtype='float32'")
    known = runtime_of(backend).DTYPES
    if name not in known:
        expected = " or ".join(map(repr, known))
        raise InputError(f"backend {backend!r} computes in {expected}, got dtype {name!r}; use dtype='auto'")
    return name
