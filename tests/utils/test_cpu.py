"""How many threads compute: cores, quotas of control groups, and what the owner of a process asked for."""

import os
import subprocess
import sys

import pytest
import torch

import fashion_retrieval
from fashion_retrieval import diagnostics
from fashion_retrieval._utils import cpu

NEW, OLD = "0::/kube/pod\n", "5:cpuset:/\n4:cpu,cpuacct:/docker/a\n0::/\n"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A function that writes files of control groups, and what reads their quota."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(cpu, "cores", lambda: 8)
    read = cpu.quota.__wrapped__

    def write(groups, **files):
        for name, content in {"proc/self/cgroup": groups, **files}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
        limit = read(tmp_path)
        monkeypatch.setattr(cpu, "quota", lambda: limit)
        monkeypatch.setattr(diagnostics, "quota", lambda: limit)
        return limit

    return write


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        (NEW, {"sys/fs/cgroup/kube/pod/cpu.max": "150000 100000\n"}, 1.5),
        (NEW, {"sys/fs/cgroup/cpu.max": "50000 100000\n"}, 0.5),  # a container sees its own group at the top
        (NEW, {"sys/fs/cgroup/kube/pod/cpu.max": "400000 100000", "sys/fs/cgroup/kube/cpu.max": "300000 100000"}, 3),
        (NEW, {"sys/fs/cgroup/kube/pod/cpu.max": "max 100000\n"}, None),
        (NEW, {"sys/fs/cgroup/kube/pod/cpu.max": "nonsense"}, None),
        (NEW, {}, None),
        ("", {"sys/fs/cgroup/cpu.max": "100000 100000\n"}, None),
        (
            OLD,
            {
                "sys/fs/cgroup/cpu/docker/a/cpu.cfs_quota_us": "250000\n",
                "sys/fs/cgroup/cpu/docker/a/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            2.5,
        ),
        (OLD, {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "1\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "0\n"}, None),
    ],
)
def test_quota_is_the_least_of_the_groups(machine, groups, files, expected):
    assert machine(groups, **files) == expected


@pytest.mark.parametrize(
    ("omp", "limit", "expected"),
    [
        (None, "max", 8),
        (None, "150000", 2),
        (None, "10000", 1),
        ("3", "max", 3),
        ("3,2", "max", 3),
        ("16", "max", 16),
        ("3", "100000", 1),
        ("none", "max", 8),
        ("0", "400000", 4),
    ],
)
def test_threads_without_torch_are_what_was_asked_for_within_the_quota(machine, monkeypatch, omp, limit, expected):
    machine("0::/\n", **{"sys/fs/cgroup/cpu.max": f"{limit} 100000\n"})
    monkeypatch.delitem(sys.modules, "torch")
    if omp is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", omp)
    assert cpu.threads() == expected
    cpu.keep_to_quota()
    assert os.environ.get("OMP_NUM_THREADS") == (omp or (None if expected == 8 else str(expected)))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def test_threads_with_torch_are_its_own_within_the_quota(machine, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    machine("0::/\n", **{"sys/fs/cgroup/cpu.max": "max 100000\n"})
    monkeypatch.setenv("OMP_NUM_THREADS", "3")  # which the host has overruled by set_num_threads
    assert cpu.threads() == 5
    machine("0::/\n", **{"sys/fs/cgroup/cpu.max": "400000 100000\n"})
    assert cpu.threads() == 4


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux pins a process to cores")
def test_cores_are_those_the_process_is_pinned_to():
    program = (
        "import os, sys; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
        "from fashion_retrieval._utils.cpu import cores, threads; print(cores(), threads(), 'torch' in sys.modules)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "1", "False"]


def test_doctor_shows_the_cpus_and_names_the_remedy_for_too_many_threads(machine, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.setattr(diagnostics, "cores", lambda: 8)
    monkeypatch.setattr(diagnostics, "_embedded_model", dict)  # no self-test
    machine("0::/\n", **{"sys/fs/cgroup/cpu.max": "150000 100000\n"})
    found = fashion_retrieval.doctor(device="cpu", dtype="float32")
    assert found["cpu"] == {"cores": 8, "quota": 1.5, "omp_num_threads": None, "threads": 2}
    (problem,) = found["problems"]
    assert problem == (
        "PyTorch computes on 8 threads, but the control group allows the time of 1.5 CPUs, so that all of them wait; "
        "set OMP_NUM_THREADS=2 before Python starts"
    )
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert fashion_retrieval.doctor(device="cpu", dtype="float32")["problems"] == []
