"""A convolution that clips gives the numbers of the two layers that it stands for."""

import pytest
import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import nn

from fashion_retrieval.models.clipped import ClippedConv, can_clip

CPU = torch.device("cpu")


@pytest.mark.parametrize("size", [(24, 32), (23, 32), (24, 31), (7, 7)])
@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("groups", [1, 8])
@pytest.mark.parametrize("kind", [nn.Conv2d, Conv2dSame])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_clipped_convolution_equals_convolution_and_relu6(size, kernel, stride, groups, kind, dtype):
    if not can_clip(CPU, dtype):
        pytest.skip(f"oneDNN does not compute {dtype} on this processor")
    torch.manual_seed(0)
    layer = kind(8, 8, kernel, stride=stride, groups=groups).to(dtype).requires_grad_(False)
    maps = (8 * torch.randn(2, 8, *size)).to(dtype).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        expected, found = nn.functional.relu6(layer(maps)), ClippedConv(layer)(maps)
    assert found.shape == expected.shape
    assert (found.float() - expected.float()).abs().max() <= (1e-5 if dtype == torch.float32 else 2**-5)
    assert found.min() == 0
    assert found.max() == 6


def test_only_a_processor_with_onednn_clips():
    assert not can_clip(torch.device("meta"), torch.float32)
    assert not can_clip(CPU, torch.float16)
    assert can_clip(CPU, torch.float32) == torch.backends.mkldnn.is_available()
