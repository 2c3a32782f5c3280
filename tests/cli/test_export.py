"""`fashion-retrieval export`: what it writes, measures, offers and refuses."""

import json

import pytest
from typer.testing import CliRunner

from fashion_retrieval import FashionModel
from fashion_retrieval._utils import optional
from fashion_retrieval.backends.compiled import ProgramTowers
from fashion_retrieval.checkpoint.export_manifest import Export
from fashion_retrieval.cli import app
from fashion_retrieval.export import export as exporting
from tests.support.exported_models import model_folder, write_graphs
from tests.support.tiny import contents, drawn_photo, tiny_folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return model_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of photos for each of two categories."""
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(6):
        (folder / ("tee", "blue_jeans")[seed % 2]).mkdir(exist_ok=True)
        drawn_photo(seed=seed).save(folder / ("tee", "blue_jeans")[seed % 2] / f"{seed}.png")
    return folder


@pytest.fixture
def export(model, monkeypatch):
    """A function that runs the command on the tiny model, whose graphs were converted before."""
    monkeypatch.setattr(exporting, "convert", write_graphs)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments):
        return CliRunner().invoke(app, ["export", str(model), *map(str, arguments)])

    return run


def test_export_float32_with_labeled_photos_is_the_default(export, model, photos, tmp_path):
    done = export("--to", "openvino", "--labeled", photos, "--out", tmp_path / "out")
    assert (done.exit_code, done.stderr) == (0, f"openvino fp32 in {tmp_path / 'out'}\n")
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in done.stdout.splitlines() if "│" in line]
    figures = {row[0]: row[1:] for row in rows}
    for what in ("images", "texts", "composed queries"):
        assert figures[f"{what}, cosine: mean (least)"] == ["1", "1.000000 (1.000000)"]
    assert figures["category, precision"][0] == figures["category, precision"][1]
    assert figures["same category, recall@10"] == ["1.0000", "1.0000"]
    assert "photos a second" in figures
    assert done.stdout.endswith("backend='auto' takes it\n")
    exported = Export.read(tmp_path / "out" / "openvino")
    assert (exported.precision, exported.default, exported.parity["photos"]) == ("fp32", True, 6)
    assert exported.versions.keys() == {"torch", "openvino"}
    graphs = {f"{name}.{end}" for name in ("image", "text", "composer") for end in ("bin", "xml")}
    assert set(exported.sha256) == graphs | {"bpe_simple_vocab_16e6.txt.gz", "golden.safetensors"}
    assert min(exported.parity[f"golden_{kind}_cosine"] for kind in ("image", "text")) > 0.99999
    assert {p.name for p in model.iterdir()} | {"openvino", "README.md"} == {
        p.name for p in (tmp_path / "out").iterdir()
    }
    assert isinstance(FashionModel.from_pretrained(tmp_path / "out", device="cpu").towers, ProgramTowers)


def test_export_int8_without_labeled_photos_is_not_the_default(export, photos, tmp_path):
    out = tmp_path / "out"
    done = export("--to", "onnx", "--precision", "int8", "--calibrate", photos, "--out", out, "--json")
    figures = json.loads(done.stdout)
    assert figures["photos"] == 2  # every fifth of six
    assert figures["default"] is False
    assert 0.99 < figures["image_cosine_min"] < 0.999999
    assert figures["text_cosine_min"] > 0.999999
    assert "precision" not in figures
    assert not isinstance(FashionModel.from_pretrained(out, device="cpu").towers, ProgramTowers)
    assert isinstance(FashionModel.from_pretrained(out, backend="onnx").towers, ProgramTowers)


def test_a_second_export_joins_the_first(export, tmp_path, monkeypatch):
    monkeypatch.setattr("fashion_retrieval._utils.cpu.multiplies_bfloat16", lambda: True)  # else bf16 is refused
    out = tmp_path / "out"
    assert export("--to", "onnx", "--out", out).exit_code == 0
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir() if path.is_file()}
    (out / "onnx" / "old.txt").write_text("of an earlier export")
    for backend, precision in (("onnx", "fp32"), ("openvino", "bf16")):
        assert export("--to", backend, "--precision", precision, "--out", out).exit_code == 0
    assert before == {path.name: path.stat().st_mtime_ns for path in out.iterdir() if path.is_file()}
    assert not (out / "onnx" / "old.txt").exists()
    assert {path.name for path in out.iterdir() if path.is_dir()} == {"onnx", "openvino"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "tensorrt"], "a model is exported to 'openvino' or 'onnx', got 'tensorrt'; use 'openvino'"),
        (["--to", "onnx", "--precision", "int4"], "precision must be 'fp32', 'bf16' or 'int8', got 'int4'; use 'fp32'"),
        (["--to", "onnx", "--precision", "bf16"],
         "ONNX Runtime has no bfloat16 on CPUs; use fp32 or int8, or export to openvino"),
        (["--to", "openvino", "--precision", "int8"],
         "int8 takes its ranges from photos, got none; give some like those to be encoded"),
    ],
)  # fmt: skip
def test_export_refuses_what_a_runtime_lacks(export, tmp_path, arguments, message):
    done = export(*arguments, "--out", tmp_path / "out")
    assert (done.exit_code, done.stdout, done.stderr) == (1, "", f"error: {message}\n")
    assert not list(tmp_path.iterdir())


def test_export_refuses_unfit_folders(export, photos, tmp_path):
    other = tiny_folder(tmp_path / "other", seed=1)
    before = contents(other)
    done = export("--to", "onnx", "--out", other)
    assert (done.exit_code, done.stderr) == (1, f"error: {other} holds another model; name a new folder\n")
    assert contents(other) == before
    done = export("--to", "onnx", "--out", other / "open_clip_config.json")
    assert done.stderr.startswith("error: expected a folder to export to, ")
    empty = tmp_path / "empty"
    empty.mkdir()
    for folder, message in (
        (tmp_path / "no", "--labeled must be a folder with a subfolder for each category, found none at"),
        (photos / "tee", "--labeled must hold a subfolder of photos for each of at least two categories,"),
    ):
        done = export("--to", "onnx", "--labeled", folder, "--out", tmp_path / "out")
        assert (done.exit_code, done.stderr.startswith(f"error: {message}")) == (1, True)
    done = export("--to", "onnx", "--precision", "int8", "--calibrate", empty, "--out", tmp_path / "out")
    assert done.stderr.startswith(f"error: folder {empty} holds no photo")
    assert not (tmp_path / "out").exists()


def test_nothing_is_left_of_an_export_that_fails(export, model, photos, tmp_path):
    bad = tmp_path / "bad.jpg"
    bad.write_text("not a photo")
    done = export(
        "--to", "onnx", "--precision", "int8", "--calibrate", photos, "--calibrate", bad, "--out", tmp_path / "o"
    )
    assert done.exit_code == 1
    assert done.stderr.startswith("error: ")
    assert "bad.jpg' is not a photo in a known format" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["bad.jpg"]


@pytest.mark.parametrize(
    ("to", "precision", "package", "extra"),
    [
        ("openvino", "fp32", "openvino", "openvino"),
        ("openvino", "int8", "nncf", "quantize"),
        ("onnx", "fp32", "onnxscript", "onnx"),
    ],
)
def test_export_without_its_extra_names_it(export, photos, tmp_path, monkeypatch, to, precision, package, extra):
    found = optional.find_spec
    monkeypatch.setattr(optional, "find_spec", lambda name: None if name == package else found(name))
    done = export("--to", to, "--precision", precision, "--calibrate", photos, "--out", tmp_path / "out")
    reason = f"{package} is needed and can't be imported (No module named '{package}')"
    assert done.stderr == f"error: {reason}; run: pip install 'fashion-retrieval[{extra}]'\n"
    assert not (tmp_path / "out").exists()
