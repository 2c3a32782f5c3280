"""Where a model runs and in which floating-point type."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from fashion_retrieval.errors import InputError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_CPUINFO = Path("/proc/cpuinfo")


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """Turn a device name into a device that exists here.

    Args:
        device: "auto" (CUDA, else Apple MPS, else CPU), "cpu", "cuda", "cuda:N" or "mps".

    Raises:
        InputError: The name is none of these, or this machine has no such device.
    """
    if device == "auto":
        return torch.device(_best_device_type())
    try:
        resolved = torch.device(device)
    except (RuntimeError, TypeError):
        raise _unknown_device(device) from None
    if resolved.type == "cuda":
        _check_cuda(resolved)
    elif resolved.type == "mps":
        if not torch.backends.mps.is_available():
            raise InputError(f"device {str(device)!r} asked for, but PyTorch finds no Apple GPU here; use 'cpu'")
    elif resolved.type != "cpu":
        raise _unknown_device(device)
    return resolved


def resolve_dtype(dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    """Turn a type name into the type in which matrix products are computed on `device`.

    Args:
        dtype: "float32", "bfloat16", "float16" or "auto": on CUDA bfloat16 where the GPU has it, else float16; on
            Apple MPS float32; on the CPU bfloat16 only with AVX512-BF16 or AMX, else float32.
        device: Where the model runs.

    Raises:
        InputError: The name is none of these.
    """
    name = str(dtype).removeprefix("torch.")
    if name == "auto":
        return _fastest_dtype(device)
    if name not in DTYPES:
        raise InputError(f"dtype must be 'auto', {_quoted(DTYPES)}, got {name!r}; use 'auto'")
    return DTYPES[name]


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


def _best_device_type() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _fastest_dtype(device: torch.device) -> torch.dtype:
    if device.type == "cuda":
        major, _ = torch.cuda.get_device_capability(device)
        return torch.bfloat16 if major >= 8 else torch.float16
    if device.type == "cpu" and _cpu_multiplies_bfloat16():
        return torch.bfloat16
    return torch.float32


def _cpu_multiplies_bfloat16() -> bool:
    """True with AVX512-BF16 or AMX, read from Linux' list of CPU flags; False where there is no such list."""
    if not _CPUINFO.is_file():
        return False
    flags = _CPUINFO.read_text(encoding="utf-8", errors="replace").split()
    return "avx512_bf16" in flags or "amx_bf16" in flags


def _check_cuda(device: torch.device) -> None:
    if not torch.cuda.is_available():
        raise InputError(f"device {str(device)!r} asked for, but PyTorch finds no CUDA GPU here; use 'cpu'")
    count = torch.cuda.device_count()
    if device.index is not None and device.index >= count:
        raise InputError(f"device {str(device)!r} asked for, but this machine has {count} CUDA GPU(s); use 'cuda:0'")


def _unknown_device(device: object) -> InputError:
    return InputError(f"device must be 'auto', 'cpu', 'cuda', 'cuda:N' or 'mps', got {str(device)!r}; use 'auto'")


def _quoted(names: dict[str, torch.dtype]) -> str:
    *head, last = (repr(name) for name in names)
    return f"{', '.join(head)} or {last}"
