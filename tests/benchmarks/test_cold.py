"""Whole processes beside an earlier build: what is run, and what is told of it."""

from __future__ import annotations

import pytest

from benchmarks import cold
from tests.support.paths import ROOT


def test_a_process_is_told_by_its_peak_of_memory() -> None:
    small, large = (cold.peak(ROOT, f"held = bytearray({size} << 20)") for size in (0, 200))
    assert 190 * 1024 < large - small < 220 * 1024
    assert cold.peak(ROOT, "import sys; sys.exit(0)") > 0
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        cold.peak(ROOT, "1 / 0")


def test_the_command_is_run_with_the_checkouts_package() -> None:
    code = cold.COMMAND.format(arguments=["--version"])
    assert cold.peak(ROOT, code) > cold.peak(ROOT, "pass")
    assert cold.paths(ROOT)["PYTHONPATH"] == str(ROOT / "src")
