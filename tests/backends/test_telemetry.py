"""OpenVINO and nncf report to nobody when a model is loaded, converted and quantized: no connection is tried."""

import os
import shutil
import subprocess
import sys

import pytest

RECORDER = """
import os, sys

def record(event, given):
    tried = event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "socket.connect")
    if tried and not (event == "socket.connect" and isinstance(given[1], str | bytes)):
        with open(os.environ["TRIED"], "a") as file:
            print(event, given, file=file)

sys.addaudithook(record)
"""
"""Python runs it at the start of each process; forked ones inherit it. A path is a socket of this machine."""

WORK = """
import sys
from pathlib import Path
import numpy as np
from fashion_retrieval import FashionModel
from fashion_retrieval.backends.convert import convert, quantize

source, out = map(Path, sys.argv[1:])
model = FashionModel.from_pretrained(source, device="cpu", backend="openvino", dtype="float32")
print(model.encode(texts=["a red dress"]).shape)
convert(source, "openvino", out)
np.save(out / "pixels.npy", np.random.default_rng(0).standard_normal((2, 3, 32, 32), np.float32))
quantize("openvino", out / "image.xml", out / "pixels.npy", convolutional=False)
assert "openvino_telemetry" not in sys.modules
import openvino_telemetry  # others in this process can have it
"""


@pytest.fixture
def tried(tmp_path):
    """A function that runs a program in a network of its own, as a user who was never asked: the connections tried."""
    (tmp_path / "start").mkdir()
    (tmp_path / "start" / "sitecustomize.py").write_text(RECORDER, encoding="utf-8")
    (tmp_path / "home").mkdir()
    alone = ["unshare", "-rn"] if shutil.which("unshare") else []
    if not alone or subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
        alone = []

    def run(program, *arguments):
        if not alone and program != WORK:
            pytest.skip("this system gives no network of its own (unshare -rn): the counterproof would report for real")
        kept = {name: value for name, value in os.environ.items() if name not in ("CI", "TF_BUILD", "JENKINS_URL")}
        path = os.pathsep.join([str(tmp_path / "start"), *filter(None, sys.path)])
        changed = {"HOME": str(tmp_path / "home"), "PYTHONPATH": path, "TRIED": str(tmp_path / "tried")}
        command = [*alone, sys.executable, "-W", "ignore", "-c", program, *map(str, arguments)]
        done = subprocess.run(command, env=kept | changed, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return (tmp_path / "tried").read_text(encoding="utf-8") if (tmp_path / "tried").exists() else ""

    return run


def test_load_convert_and_quantize_try_no_connection(tried, folder, tmp_path):
    (tmp_path / "out").mkdir()
    assert tried(WORK, folder, tmp_path / "out") == ""
    assert not (tmp_path / "home" / "intel").exists()


def test_openvino_alone_tries_one(tried):
    assert "google-analytics" in tried("import openvino")
