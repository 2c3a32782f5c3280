"""What this machine computes with, told without torch."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_GPUS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
"""Drivers of NVIDIA and AMD GPUs on Linux, and of Windows' GPUs in its Linux."""


def threads() -> int:
    """As many as torch uses, where it is loaded; else one for each processor."""
    torch = sys.modules.get("torch")
    return torch.get_num_threads() if torch is not None else len(os.sched_getaffinity(0))


def surely_cpu(device: object) -> bool:
    """Whether a device, "auto" among others, is the CPU, where that can be told without torch."""
    if str(device) != "auto":
        return str(device) == "cpu"
    return sys.platform == "linux" and not any(map(os.path.exists, _GPUS))


def multiplies_bfloat16() -> bool:
    """True with AVX512-BF16 or AMX, read from Linux' list of CPU flags; False where there is no such list."""
    if not _CPUINFO.is_file():
        return False
    flags = _CPUINFO.read_text(encoding="utf-8", errors="replace").split()
    return "avx512_bf16" in flags or "amx_bf16" in flags
