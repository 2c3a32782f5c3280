"""The Hugging Face Space, started as a process, offline."""

import os
import re
import signal
import socket
import subprocess
import sys
import time

import httpx
import pytest
import yaml

from tests.support.paths import ROOT

SPACE = ROOT / "examples" / "space"
pytest.importorskip("gradio", reason="NO GRADIO, so the Space is not tested: pip install 'fashion-retrieval[page]'")


def test_the_space_starts_shows_the_page_and_ends():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {"PORT": str(port), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT / "src")}
    process = subprocess.Popen(
        [sys.executable, SPACE / "app.py"], env=os.environ | settings, stderr=subprocess.PIPE, text=True
    )
    try:
        text, end = "", time.monotonic() + 240
        while "gradio_config" not in text and process.poll() is None and time.monotonic() < end:
            time.sleep(0.2)
            try:
                text = httpx.get(f"http://127.0.0.1:{port}/").text
            except httpx.ConnectError:
                continue
        assert "Drop a photo here" in text
        assert 'href=\\"docs\\"' not in text
        assert httpx.get(f"http://127.0.0.1:{port}/docs").status_code == 404
        process.send_signal(signal.SIGTERM)
        errors = process.communicate(timeout=20)[1]
        assert "Traceback" not in errors
    finally:
        process.kill()
        process.communicate()


def test_the_space_s_header_names_the_app_and_a_gradio_that_the_page_is_for():
    header = yaml.safe_load((SPACE / "README.md").read_text(encoding="utf-8").split("---\n")[1])
    assert (header["sdk"], header["app_file"]) == ("gradio", "app.py")
    least = re.search(r'"gradio>=([\d.]+),<(\d+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert header["sdk_version"].startswith(least[1])
    assert len(header["short_description"]) <= 60
    assert "fashion-retrieval[page]" in (SPACE / "requirements.txt").read_text(encoding="utf-8")
