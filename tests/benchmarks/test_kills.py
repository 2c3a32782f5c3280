"""The benchmark of kills, with few of them: a process of its own, since it forks."""

import json
import subprocess
import sys


def test_killed_writers_lose_and_double_nothing(tmp_path):
    out = tmp_path / "kills.json"
    command = [sys.executable, "-m", "benchmarks.kills", "--rounds", "5", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(out.read_text(encoding="utf-8"))
    assert (report["kills"], sum(report["operations cut off"].values())) == (5, 5)
    assert (report["faults"], report["lost, doubled or unreadable"]) == ({}, 0)
