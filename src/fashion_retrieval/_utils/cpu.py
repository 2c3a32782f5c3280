"""What this machine computes with, told without torch: threads, quota, and what its processor multiplies."""

from __future__ import annotations

import math
import os
import sys
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_MOST = 16
"""Threads a core, at most."""
_GPUS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
"""Drivers of NVIDIA and AMD GPUs on Linux, and of Windows' GPUs in its Linux."""


def threads() -> int:
    """On how many threads this process computes; PyTorch is asked where it is loaded, and not loaded for it.

    As many as `wanted_threads`, but no more than the quota, beyond which the kernel makes all of them wait.
    """
    limit = quota()
    return min(wanted_threads(), math.ceil(limit) if limit else sys.maxsize)


def wanted_threads() -> int:
    """As many as `torch.set_num_threads` or OMP_NUM_THREADS says, else as there are cores."""
    torch, asked = sys.modules.get("torch"), os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    wanted = torch.get_num_threads() if torch else int(asked) if asked.isdecimal() else 0
    return min(wanted, _MOST * cores()) or cores()  # runtimes hang with thousands


@cache
def cores() -> int:
    """Cores that this process may run on (`taskset`, cpusets); hyperthreads of one count once, as PyTorch has it."""
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    siblings = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    return len({_text(Path(siblings.format(number))) or str(number) for number in usable})


@cache
def quota(root: Path = Path("/")) -> float | None:
    """How many CPUs' time the control groups of this process allow, those of Linux' version 2 and 1; None is no limit.

    A group is limited by those above it, too. `root` is the folder that holds `proc` and `sys`.
    """
    found = []
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, place = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        group = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
        for part in (Path(place.lstrip("/")), *Path(place.lstrip("/")).parents):
            old = _text(group / part / "cpu.cfs_quota_us") + _text(group / part / "cpu.cfs_period_us")
            with suppress(ValueError, ZeroDivisionError):  # "max", and no file at all
                allowed, period = map(int, (_text(group / part / "cpu.max") or old).split())
                found += [allowed / period] if allowed > 0 else []
    return min(found, default=None)


def keep_to_quota() -> None:
    """For processes that are ours, before PyTorch is loaded: it would take all cores, whatever the quota."""
    if threads() < cores():
        os.environ.setdefault("OMP_NUM_THREADS", str(threads()))


def surely_cpu(device: object) -> bool:
    """Whether a device, "auto" among others, is the CPU, where that can be told without torch."""
    if str(device) != "auto":
        return str(device) == "cpu"
    return (sys.platform == "linux" and not any(map(os.path.exists, _GPUS))) or find_spec("torch") is None


def multiplies_bfloat16() -> bool:
    """True with AVX512-BF16 or AMX, read from Linux' list of CPU flags; False where there is no such list."""
    flags = _text(_CPUINFO).split()
    return "avx512_bf16" in flags or "amx_bf16" in flags


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
