"""Freed memory stays with the process, unless its user has settings of their own."""

import platform
import subprocess
import sys

import pytest

from fashion_retrieval._malloc import keep_freed

PROGRAM = """
import resource
import numpy as np
from fashion_retrieval._malloc import keep_freed
told = keep_freed()
def work():
    for size in (3, 5, 7, 11):
        np.ones(size << 18, np.float32)
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
before = faults()
for _ in range(5):
    work()
print(told, faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's malloc is told")
@pytest.mark.parametrize(("settings", "told", "most"), [({}, True, 500), ({"MALLOC_TRIM_THRESHOLD_": "1"}, False, 0)])
def test_freed_memory_is_not_fetched_again(settings, told, most):
    ran = subprocess.run([sys.executable, "-c", PROGRAM], env=settings, check=True, capture_output=True, text=True)
    answer, faults = ran.stdout.split()
    assert answer == str(told)
    assert int(faults) < most if told else int(faults) > 5000


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_freed()
