"""What the processor multiplies at most: the limit that an encoder can come near to."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from fashion_retrieval import FashionModel

_SIDES, _RUNS = {"cpu": 2048, "cuda": 8192}, 7
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def matmul_gflops(device: str) -> dict[str, float]:
    """GFLOP/s of a large product in each precision, by torch's matmul or its 1x1 convolution, whichever is faster."""
    return {name: round(_fastest(dtype, device) / 1e9, 1) for name, dtype in DTYPES.items()}


def gflop_of_an_image(model: FashionModel) -> float:
    """Floating-point operations of the image tower for one photo, in units of 1e9."""
    pixels = torch.zeros(1, 3, *model.encoder.image_size)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # as any fused attention, one operation that is not counted
    try:
        with FlopCounterMode(display=False) as counter, torch.inference_mode(), sdpa_kernel(SDPBackend.MATH):
            model.encoder.encode_image(pixels)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return round(float(counter.get_total_flops()) / 1e9, 6)


def seconds_of(run: Callable[[], object], runs: int = _RUNS) -> float:
    """Median after two runs that don't count."""
    times = []
    for _ in range(runs + 2):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return median(times[2:])


def _fastest(dtype: torch.dtype, device: str) -> float:
    side = _SIDES[device]
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    maps = torch.randn(1, side, side, 1, device=device, dtype=dtype).to(memory_format=torch.channels_last)
    kernels = left.view(side, side, 1, 1).contiguous(memory_format=torch.channels_last)

    def product() -> Tensor:
        return _waited(left @ right)

    def convolution() -> Tensor:
        return _waited(functional.conv2d(maps, kernels))

    with torch.inference_mode():
        return float(2 * side**3) / min(map(seconds_of, (product, convolution)))


def _waited(found: Tensor) -> Tensor:
    if found.device.type == "cuda":
        torch.cuda.synchronize()
    return found
