"""Where a model runs and in which floating-point type."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from fashion_retrieval._utils import cpu
from fashion_retrieval.errors import InputError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """The device of a name: "auto" (CUDA, else Apple MPS, else CPU), "cpu", "cuda", "cuda:N" or "mps".

    An InputError refuses any other name, and a device that this machine does not have.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        resolved: torch.device | None = torch.device(device)
    except (RuntimeError, TypeError):
        resolved = None
    if resolved is None or resolved.type not in ("cpu", "cuda", "mps"):
        expected = "'auto', 'cpu', 'cuda', 'cuda:N' or 'mps'"
        raise InputError(f"device must be {expected}, got {str(device)!r}; use 'auto'")
    asked = f"device {str(device)!r} asked for, but"
    if resolved.type == "mps" and not torch.backends.mps.is_available():
        raise InputError(f"{asked} PyTorch finds no Apple GPU here; use 'cpu'")
    if resolved.type == "cuda":
        if not torch.cuda.is_available():
            raise InputError(f"{asked} PyTorch finds no CUDA GPU here; use 'cpu'")
        if resolved.index is not None and resolved.index >= (count := torch.cuda.device_count()):
            raise InputError(f"{asked} this machine has {count} CUDA GPU(s); use 'cuda:0'")
    return resolved


def resolve_dtype(dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    """The type in which matrix products are computed: "float32", "bfloat16", "float16" or "auto".

    "auto" is bfloat16 where the hardware multiplies it: CUDA GPUs from Ampere on (float16 on older ones), and CPUs with
    AVX512-BF16 or AMX. Elsewhere it is float32. An InputError refuses any other name.
    """
    name = str(dtype).removeprefix("torch.")
    if name in DTYPES:
        return DTYPES[name]
    if name != "auto":
        raise InputError(f"dtype must be 'auto', 'float32', 'bfloat16' or 'float16', got {name!r}; use 'auto'")
    if device.type == "cuda":
        major, _ = torch.cuda.get_device_capability(device)
        return torch.bfloat16 if major >= 8 else torch.float16
    return torch.bfloat16 if device.type == "cpu" and cpu.multiplies_bfloat16() else torch.float32


@contextmanager
def inference_context(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """No gradients, and autocast to `dtype` unless it is float32; the weights themselves stay as they are."""
    with torch.inference_mode():
        if dtype == torch.float32:
            yield
        else:
            with torch.autocast(device.type, dtype=dtype):
                yield


def describe(device: torch.device, dtype: torch.dtype) -> str:
    """One readable line, such as "cpu (2 threads), float32" or "cuda:0 (NVIDIA H200), bfloat16"."""
    if device.type == "cuda":
        hardware = torch.cuda.get_device_name(device)
    else:
        hardware = "Apple GPU" if device.type == "mps" else f"{torch.get_num_threads()} threads"
    return f"{device} ({hardware}), {str(dtype).removeprefix('torch.')}"
