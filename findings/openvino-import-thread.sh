#!/usr/bin/env bash
# `import openvino` leaves a thread running, that of its telemetry, for as long as the process lives.
#
# The guess: importing a package starts nothing. A program that has only imported OpenVINO has one thread, and may fork
# (multiprocessing, gunicorn --preload, a DataLoader's workers) as any program without threads.
# What happens: the import reports itself through openvino-telemetry, by a pool whose thread stays when the event is long
# sent. No call of OpenVINO is needed.
# Why it matters: a fork copies that thread's locks and not the thread. Python 3.12 warns at each fork from then on
# (DeprecationWarning, an error in many test suites), and code that forks only while it is alone never does so again.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: openvino==2026.4.1 numpy==2.4.6
"$folder/venv/bin/pip" list --format freeze 2>/dev/null | grep openvino
cat >"$folder/look.py" <<'PYTHON'
import threading
import time

print("before the import:", [thread.name for thread in threading.enumerate()])
import openvino  # noqa: E402, F401

time.sleep(10)
left = [thread.name for thread in threading.enumerate()]
print("ten seconds after:", left)
assert len(left) == 2, left
PYTHON
"$folder/venv/bin/python" "$folder/look.py"
