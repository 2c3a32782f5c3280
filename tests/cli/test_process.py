"""The command in a process of its own, with the embedded model: what a user sees after installing."""

import json
import os
import subprocess
import sys
from pathlib import Path

from PIL import Image
from typer.testing import CliRunner

import fashion_retrieval
from fashion_retrieval.cli import app
from tests.support.paths import ROOT

PHOTO = ROOT / "examples" / "grace_hopper.jpg"


def command(*arguments, **options):
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "error"}
    call = [sys.executable, "-m", "fashion_retrieval.cli", *map(str, arguments)]
    return subprocess.run(call, capture_output=True, text=True, check=False, env=environment, **options)


def test_command_version():
    assert command("--version").stdout == f"{fashion_retrieval.__version__}\n"


def test_command_with_a_closed_pipe_exits_silently():
    read, write = os.pipe()
    os.close(read)
    call = [sys.executable, "-m", "fashion_retrieval.cli", "--help"]
    done = subprocess.run(call, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


def test_embedded_model_recognizes_the_example(tmp_path):
    done = command("recognize", PHOTO, "--json", "--masks", "--save", tmp_path)
    assert done.stderr == ""
    assert done.returncode == 0
    result = json.loads(done.stdout)
    assert (result["width"], result["height"], result["model_id"]) == (512, 600, "compact")
    assert result["garments"]
    assert all(garment["mask"]["size"] == [600, 512] for garment in result["garments"])
    with Image.open(tmp_path / "grace_hopper.png") as card:
        assert card.width > 512


def test_embedded_model_skips_bad_photos(tmp_path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("not a photo")
    (tmp_path / "half.jpg").write_bytes(PHOTO.read_bytes()[:30_000])
    (tmp_path / "good.jpg").write_bytes(PHOTO.read_bytes())
    with Image.open(PHOTO) as photo:
        photo.save(tmp_path / "half.tif", compression="tiff_lzw")  # Pillow warns where its directory is cut off
    (tmp_path / "half.tif").write_bytes((tmp_path / "half.tif").read_bytes()[:30_000])
    Image.new("RGB", (1, 1)).save(tmp_path / "one.png")
    Image.new("RGB", (20_000, 10)).save(tmp_path / "wide.png")
    done = command("recognize", tmp_path, tmp_path / "missing.jpg", "--json", "--on-error", "skip")
    assert done.returncode == 1
    read = {Path(json.loads(line)["source"]).name for line in done.stdout.splitlines()}
    assert read == {"good.jpg", "one.png", "wide.png"}
    first, *rest = done.stderr.splitlines()
    assert first == "5 failed:"
    assert [Path(line.split(": ")[0].strip()).name for line in rest] == [
        "empty.jpg",
        "half.jpg",
        "half.tif",
        "text.jpg",
        "missing.jpg",
    ]


def test_embedded_model_keeps_to_box_and_pixel_limit():
    done = command("recognize", PHOTO, "--json", "--no-segmenter", "--box", "40,320,500,600")
    assert json.loads(done.stdout)["garments"][0]["box"] == [40.0, 320.0, 500.0, 600.0]
    done = command("recognize", PHOTO, "--max-pixels", "1000")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_embedded_model_info_and_doctor():
    info = json.loads(CliRunner().invoke(app, ["models", "info", "compact", "--json"]).stdout)
    assert info["id"] == info["listed"]["id"] == "compact"
    assert info["listed"]["parameters"] == info["encoder_parameters"]
    assert info["listed"]["embedding_dim"] == info["embedding_dim"]
    assert info["listed"]["license"] == info["config"]["license"]
    assert info["bytes"]["open_clip_model.safetensors"] > 1_000_000
    assert sum(info["bytes"].values()) <= 60_000_000
    done = command("doctor", "--json")
    findings = json.loads(done.stdout)
    assert (done.returncode, findings["problems"]) == (0, [])
    assert findings["hub"]["offline"] is True
    assert 0 < findings["self_test"]["recognize_seconds"] < 60
