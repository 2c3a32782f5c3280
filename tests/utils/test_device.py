"""Device and dtype by name; which machine has what is set by the test, not by the machine."""

import pytest
import torch
from torch import nn

from fashion_retrieval._utils import cpu
from fashion_retrieval._utils.cpu import surely_cpu
from fashion_retrieval._utils.device import describe, inference_context, resolve_device, resolve_dtype
from fashion_retrieval.errors import InputError

CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda", 0), torch.device("mps")


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Pretend to be a machine with these devices."""

    def pretend(*, cuda=0, mps=False, capability=(8, 0), cpu_flags="fpu sse2"):
        cpuinfo = tmp_path / "cpuinfo"
        cpuinfo.write_text(f"processor\t: 0\nflags\t\t: {cpu_flags}\n", encoding="utf-8")
        monkeypatch.setattr(cpu, "_CPUINFO", cpuinfo)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some GPU")
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return pretend


@pytest.mark.parametrize(
    ("devices", "expected"),
    [({}, "cpu"), ({"mps": True}, "mps"), ({"cuda": 1}, "cuda"), ({"cuda": 1, "mps": True}, "cuda")],
)
def test_auto_takes_the_fastest_device(machine, devices, expected):
    machine(**devices)
    assert resolve_device("auto") == torch.device(expected)


def test_a_named_device_is_kept(machine):
    machine(cuda=2, mps=True)
    assert resolve_device("cpu") == CPU
    assert resolve_device("mps") == MPS
    assert resolve_device("cuda:1") == torch.device("cuda", 1)
    assert resolve_device(CPU) == CPU


@pytest.mark.parametrize("name", ["gpu", "", "CUDA:first", "meta", "cuda:-1", None])
def test_an_unknown_device_names_the_choices(machine, name):
    machine()
    with pytest.raises(InputError, match=r"device must be 'auto', 'cpu', 'cuda', 'cuda:N' or 'mps', got .*use 'auto'"):
        resolve_device(name)


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "mps"])
def test_an_absent_device_names_the_cpu(machine, name):
    machine()
    with pytest.raises(InputError, match=rf"'{name}' asked for, but PyTorch finds no .* use 'cpu'"):
        resolve_device(name)


def test_a_gpu_number_too_high_is_refused(machine):
    machine(cuda=1)
    with pytest.raises(InputError, match=r"'cuda:3' asked for, but this machine has 1 CUDA GPU"):
        resolve_device("cuda:3")


@pytest.mark.parametrize(
    ("device", "settings", "expected"),
    [
        (CUDA, {"cuda": 1, "capability": (9, 0)}, torch.bfloat16),
        (CUDA, {"cuda": 1, "capability": (7, 5)}, torch.float16),
        (MPS, {"mps": True}, torch.float32),
        (CPU, {"cpu_flags": "avx512f avx512_bf16"}, torch.bfloat16),
        (CPU, {"cpu_flags": "amx_tile amx_bf16"}, torch.bfloat16),
        (CPU, {"cpu_flags": "avx2 avx512f"}, torch.float32),
    ],
)
def test_auto_dtype_is_what_the_device_multiplies_fast(machine, device, settings, expected):
    machine(**settings)
    assert resolve_dtype("auto", device) == expected


def test_auto_dtype_without_a_list_of_cpu_flags_is_float32(monkeypatch, tmp_path):
    monkeypatch.setattr(cpu, "_CPUINFO", tmp_path / "absent")
    assert resolve_dtype("auto", CPU) == torch.float32


def test_a_named_dtype_is_kept():
    assert resolve_dtype("bfloat16", CPU) == torch.bfloat16
    assert resolve_dtype(torch.float16, CPU) == torch.float16


@pytest.mark.parametrize("name", ["fp16", "float64", "int8", "", torch.int64, None])
def test_an_unknown_dtype_names_the_choices(name):
    with pytest.raises(InputError, match=r"dtype must be 'auto', 'float32', 'bfloat16' or 'float16', got .*use 'auto'"):
        resolve_dtype(name, CPU)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_inference_context_computes_in_the_dtype_without_gradients(dtype):
    layer = nn.Linear(4, 2)
    with inference_context(CPU, dtype):
        result = layer(torch.ones(1, 4))
    assert result.dtype == dtype
    assert result.is_inference()
    assert layer.weight.dtype == torch.float32
    assert layer(torch.ones(1, 4)).requires_grad


def test_inference_context_ends_with_an_error():
    with pytest.raises(ZeroDivisionError), inference_context(CPU, torch.bfloat16):
        _ = 1 / 0
    assert not torch.is_inference_mode_enabled()
    assert not torch.is_autocast_enabled("cpu")


def test_describe_names_hardware_and_dtype(machine, monkeypatch):
    machine(cuda=1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert describe(CPU, torch.float32) == "cpu (2 threads), float32"
    assert describe(CUDA, torch.bfloat16) == "cuda:0 (Some GPU), bfloat16"
    assert describe(MPS, torch.float32) == "mps (Apple GPU), float32"


def test_the_cpu_is_told_without_torch_where_nothing_else_can_be_meant(monkeypatch, tmp_path):
    driver = tmp_path / "nvidiactl"
    monkeypatch.setattr(cpu, "_GPUS", (str(driver),))
    monkeypatch.setattr(cpu.sys, "platform", "linux")
    assert surely_cpu("auto")
    assert surely_cpu("cpu")
    assert surely_cpu(CPU)
    assert not surely_cpu("cuda")
    assert not surely_cpu(CUDA)
    driver.touch()
    assert not surely_cpu("auto")
    assert surely_cpu("cpu")
    driver.unlink()
    monkeypatch.setattr(cpu.sys, "platform", "darwin")
    assert not surely_cpu("auto")
