"""`backend=`: which export is taken, in which dtype, and which exports are refused."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from fashion_retrieval import FashionModel
from fashion_retrieval._utils import optional
from fashion_retrieval.backends.attach import describe, digests, open_graphs
from fashion_retrieval.backends.compiled import ProgramTowers
from fashion_retrieval.backends.runtimes import resolve_backend_dtype
from fashion_retrieval.checkpoint import export_manifest
from fashion_retrieval.errors import ConfigError, InputError, MissingExtraError, WeightsError
from tests.support.exported_models import BACKENDS
from tests.support.tiny import contents, drawn_photo

TEXTS = ["in red", "with long sleeves and a collar, please", "shorter"]


@pytest.fixture
def exported(bundle, folder, converted, tmp_path):
    """A function that writes a model folder with an exported model."""

    def write(backend="openvino", precision="fp32", *, default=True, **changes):
        shutil.copytree(folder, tmp_path / "model", dirs_exist_ok=True)
        shutil.copytree(converted[backend], tmp_path / "model" / backend)
        made = describe(bundle, tmp_path / "model" / backend, backend=backend, precision=precision)
        replace(made, default=default, **changes).write(tmp_path / "model" / backend)
        return tmp_path / "model"

    return write


@pytest.mark.parametrize("backend", BACKENDS)
def test_from_pretrained_with_an_export_equals_torch(exported, folder, backend, tmp_path):
    plain = FashionModel.from_pretrained(folder, dtype="float32")
    model = FashionModel.from_pretrained(exported(backend), device="cpu")
    assert isinstance(model.towers, ProgramTowers)
    assert model.dtype == torch.float32
    assert model.fingerprint == plain.fingerprint
    photos = [drawn_photo(seed=seed) for seed in range(3)]
    np.testing.assert_allclose(model.encode(images=photos), plain.encode(images=photos), atol=5e-6)
    np.testing.assert_allclose(model.encode(texts=TEXTS), plain.encode(texts=TEXTS), atol=5e-6)
    np.testing.assert_allclose(
        model.compose(photos, TEXTS), plain.compose(photos, TEXTS), atol=2e-4
    )  # references: half
    ours, theirs = (m.recognize(photos[0], segmenter=None).garments[0] for m in (model, plain))
    assert ours.category.name == theirs.category.name
    assert ours.category.probability == pytest.approx(theirs.category.probability, abs=1e-5)
    saved = contents(model.save_pretrained(tmp_path / "saved", card_id="a/b"))
    assert saved == contents(plain.save_pretrained(tmp_path / "plain", card_id="a/b"))


def test_auto_takes_the_export_that_passed_and_is_installed(exported, monkeypatch):
    folder = exported("onnx", default=False)
    assert not isinstance(FashionModel.from_pretrained(folder, device="cpu").towers, ProgramTowers)
    assert isinstance(FashionModel.from_pretrained(folder, device="cpu", backend="onnx").towers, ProgramTowers)
    exported("openvino")
    assert isinstance(FashionModel.from_pretrained(folder, device="cpu").towers, ProgramTowers)
    assert not isinstance(FashionModel.from_pretrained(folder, backend="torch").towers, ProgramTowers)
    monkeypatch.setattr(export_manifest, "find_spec", lambda package: None)
    assert not isinstance(FashionModel.from_pretrained(folder, device="cpu").towers, ProgramTowers)


@pytest.mark.parametrize(
    ("precision", "backend", "dtype", "expected"),
    [
        ("fp32", "openvino", "auto", "float32"),
        ("fp32", "openvino", "bfloat16", "bfloat16"),
        ("int8", "onnx", "auto", "float32"),
        ("bf16", "openvino", "float32", "float32"),
    ],
)
def test_resolve_backend_dtype(precision, backend, dtype, expected, monkeypatch):
    monkeypatch.setattr("fashion_retrieval._utils.cpu.multiplies_bfloat16", lambda: True)
    assert resolve_backend_dtype(backend, precision, dtype) == expected


@pytest.mark.parametrize(
    ("backend", "dtype", "precision"),
    [("openvino", "float32", "fp32"), ("openvino", "bfloat16", "fp32"), ("onnx", "float32", "int8")],
)
def test_other_runtimes_shrink_photos_the_same_way_everywhere(converted, bundle, backend, dtype, precision):
    towers = open_graphs(bundle, converted[backend], backend, dtype, precision).towers
    assert towers.preprocessing == replace(bundle.encoder.preprocessing, exact=True)
    assert (towers.backend, towers.dtype) == (f"{backend} {precision}", dtype)


def test_resolve_backend_dtype_auto_is_the_measured_precision(monkeypatch):
    monkeypatch.setattr("fashion_retrieval._utils.cpu.multiplies_bfloat16", lambda: True)
    assert resolve_backend_dtype("openvino", "bf16", "auto") == "bfloat16"
    assert resolve_backend_dtype("openvino", "int8", "auto") == "bfloat16"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "tensorrt"}, "backend must be 'auto', 'torch', 'openvino' or 'onnx', got 'tensorrt'; use 'auto'"),
        ({"backend": "onnx", "dtype": "bfloat16"}, "'onnx' computes in 'float32', got dtype 'bfloat16'"),
        ({"backend": "openvino", "dtype": "float16"}, "computes in 'float32' or 'bfloat16', got dtype 'float16'"),
    ],
)
def test_from_pretrained_refuses_what_a_backend_does_not_have(folder, options, message):
    with pytest.raises(InputError, match=message):
        FashionModel.from_pretrained(folder, **options)


def test_from_pretrained_on_a_gpu_refuses_cpu_backends(folder, monkeypatch):
    monkeypatch.setattr("fashion_retrieval._utils.device.resolve_device", lambda device: torch.device("cuda"))
    with pytest.raises(InputError, match="backend 'onnx' computes on the CPU, got device 'cuda'; use device='cpu'"):
        FashionModel.from_pretrained(folder, backend="onnx", device="cuda")


@pytest.mark.parametrize("part", ["encoder", "composer"])
def test_export_of_another_model_is_refused_by_name_and_ignored_by_auto(exported, part):
    folder = exported(**{part: "0" * 64})
    with pytest.raises(WeightsError, match=rf"exported from another {part} \(0{{12}}…\) than the one beside it \("):
        FashionModel.from_pretrained(folder, device="cpu", backend="openvino")
    assert FashionModel.from_pretrained(folder, device="cpu").backend == "torch"


def test_from_pretrained_refuses_damaged_exports(exported):
    folder = exported()
    graph = folder / "openvino" / "text.bin"
    graph.write_bytes(graph.read_bytes()[:-1])
    with pytest.raises(WeightsError, match=r"text\.bin was altered or cut off: expected sha256"):
        FashionModel.from_pretrained(folder, device="cpu")
    graph.unlink()
    with pytest.raises(WeightsError, match=r"expected the file text\.bin in .*, found none; export the model again"):
        FashionModel.from_pretrained(folder, device="cpu")


def test_export_file_with_faults_names_them_all(exported):
    path = exported() / "openvino" / "export.json"
    good = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(good | {"precision": "int4", "sha256": {"../x": "0" * 64}, "odd": 1}), encoding="utf-8")
    with pytest.raises(
        ConfigError,
        match=r"has 3 fault\(s\): unknown keys odd .*; 'precision' must .*; key '../x' of 'sha256' must be the name",
    ):
        FashionModel.from_pretrained(path.parents[1], device="cpu")
    path.write_text(json.dumps(good | {"schema_version": 2}), encoding="utf-8")
    with pytest.raises(ConfigError, match="has schema_version 2, expected 1"):
        FashionModel.from_pretrained(path.parents[1], device="cpu")
    for text, message in (("{", "is not valid JSON"), ("[]", "must hold a JSON object, got list")):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError, match=message):
            FashionModel.from_pretrained(path.parents[1], device="cpu")


@pytest.mark.parametrize(("backend", "package"), [("openvino", "openvino"), ("onnx", "onnxruntime")])
def test_from_pretrained_without_the_runtime_names_the_extra(exported, monkeypatch, backend, package):
    def fail(name):
        raise ModuleNotFoundError(f"No module named {name!r}")

    folder = exported(backend)
    monkeypatch.setattr(optional, "import_module", fail)
    with pytest.raises(MissingExtraError, match=rf"{package} .*; run: pip install 'fashion-retrieval\[{backend}\]'"):
        FashionModel.from_pretrained(folder, device="cpu", backend=backend)


def test_export_file_of_release_0_1_loads(bundle, exported):
    folder = exported()
    path = folder / "openvino" / "export.json"
    written = {
        "backend": "openvino",
        "composer": digests(bundle)[1],
        "default": True,
        "encoder": bundle.encoder.fingerprint,
        "parity": {"image_cosine_mean": 1.0, "photos": 16.0, "precision": 0.8, "precision_torch": 0.8},
        "precision": "int8",
        "schema_version": 1,
        "sha256": json.loads(path.read_text(encoding="utf-8"))["sha256"],
        "versions": {"torch": "2.14.1"},
    }
    path.write_text(json.dumps(written, indent=2, sort_keys=True), encoding="utf-8")
    assert FashionModel.from_pretrained(folder, device="cpu").backend == "openvino int8"
