"""Golden vectors: what is written and read, what a load compares, and what is taken where a backend is far off."""

import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import PackageNotFoundError

import numpy as np
import pytest
import torch
from huggingface_hub import constants

from fashion_retrieval import FashionModel
from fashion_retrieval._utils import cpu
from fashion_retrieval.backends import self_check
from fashion_retrieval.backends.attach import describe
from fashion_retrieval.backends.compiled import ProgramTowers
from fashion_retrieval.backends.confirm import golden_of
from fashion_retrieval.backends.examine import examine
from fashion_retrieval.backends.ready import by_torch
from fashion_retrieval.backends.runtimes import resolve_backend_dtype
from fashion_retrieval.backends.self_check import Cosines, Golden, promised
from fashion_retrieval.errors import InputError, UnsupportedError, WeightsError
from fashion_retrieval.export.export import check_request
from fashion_retrieval.models.zero_shot import normalized
from tests.support.exported_models import write_graphs
from tests.support.tiny import drawn_photo

GOLDEN = "golden.safetensors"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_ASSETS_CACHE", str(tmp_path / "assets"))
    return tmp_path / "assets" / "fashion_retrieval" / "self_check"


@pytest.fixture
def exported(bundle, folder, converted, tmp_path):
    """A model folder with an export for ONNX Runtime that has golden vectors."""
    graphs = tmp_path / "model" / "onnx"
    shutil.copytree(folder, tmp_path / "model")
    shutil.copytree(converted["onnx"], graphs)
    golden_of(bundle).write(graphs, bundle.encoder.fingerprint)
    made = describe(bundle, graphs, backend="onnx", precision="fp32")
    replace(made, default=True, parity={"image_cosine_min": 1.0, "golden_text_cosine": 0.99999}).write(graphs)
    return tmp_path / "model"


@pytest.fixture
def far_off(monkeypatch):
    """Graphs compute something else."""
    right = ProgramTowers.encode_images
    monkeypatch.setattr(ProgramTowers, "encode_images", lambda self, levels: normalized(right(self, levels) + 0.1))


@pytest.fixture
def processor(monkeypatch):
    """A function that says whether the processor multiplies bfloat16."""
    return lambda able: monkeypatch.setattr(cpu, "multiplies_bfloat16", lambda: able)


def test_golden_vectors_are_drawn_and_written_the_same_each_time(bundle, tmp_path):
    encoder, (first, second) = bundle.encoder, (tmp_path / "a", tmp_path / "b")
    for one in (first, second):
        one.mkdir()
        golden_of(bundle).write(one, encoder.fingerprint)
    assert (first / GOLDEN).read_bytes() == (second / GOLDEN).read_bytes()
    golden = Golden.read(first, encoder.fingerprint, (32, 32), 16)
    assert (golden.levels.shape, golden.levels.dtype) == ((3, 32, 32, 3), np.uint8)
    assert golden.images.shape == golden.sentences.shape == (3, 16)
    assert len({row.tobytes() for row in golden.levels}) == len(set(golden.texts)) == 3
    for size, width in (((32, 31), 16), ((32, 32), 8)):
        with pytest.raises(WeightsError, match=r"got \(3, 32, 32, 3\), \(3, 16\), \(3, 16\); export the model again$"):
            Golden.read(first, encoder.fingerprint, size, width)
    near = golden.cosines(by_torch(bundle, "cpu", "float32").towers, 3)
    assert (near.image, near.text) == pytest.approx((1, 1), abs=1e-6)


@pytest.mark.parametrize(
    ("precision", "parity", "image", "text"),
    [
        ("int8", {"image_cosine_min": 0.99, "golden_image_cosine": 0.995, "text_cosine_min": 1.0}, 0.9799, 0.9999),
        ("int8", {"image_cosine_min": 0.99, "golden_image_cosine": 0.98, "text_cosine_min": 0.9999}, 0.9599, 0.9997),
        ("fp32", {}, 0.9999, 0.9999),
        ("int8", {}, 0.98, 0.98),
    ],
)
def test_promised_is_the_measured_least_cosine_with_a_margin(precision, parity, image, text):
    least = promised(precision, parity)
    assert (least.image, least.text) == pytest.approx((image, text))
    assert Cosines(image + 1e-6, text + 1e-6).failed(least) is None
    assert "a drawn picture has a cosine of 0.5000 to float32" in Cosines(0.5, 1).failed(least)
    assert "a drawn text has a cosine of -1.0000 to float32" in Cosines(1, -1).failed(least)


def test_cosines_of_embeddings_that_are_not_numbers_are_minus_one(bundle):
    golden = golden_of(bundle, 1)
    near = replace(golden, images=golden.images * np.nan).cosines(by_torch(bundle, "cpu", "float32").towers)
    assert near.image == -1


def test_load_compares_once_and_keeps_what_it_found(exported, cache, monkeypatch):
    compared = []
    right = Golden.cosines
    monkeypatch.setattr(Golden, "cosines", lambda *given: compared.append(1) or right(*given))
    for _ in range(2):
        assert FashionModel.from_pretrained(exported, device="cpu").backend == "onnx fp32"
    assert len(compared) == len(list(cache.iterdir())) == 1
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")  # computes as another processor
    FashionModel.from_pretrained(exported, device="cpu")
    assert len(compared) == 2
    for kept in cache.iterdir():
        kept.write_bytes(b"{")
    FashionModel.from_pretrained(exported, device="cpu")
    assert len(compared) == 3


def test_what_converts_and_a_runtime_of_another_name_tell_checks_apart(exported, folder, cache, monkeypatch):
    asked = []

    def version(package):
        asked.append(package)
        if package == "onnxruntime":
            raise PackageNotFoundError(package)
        return "1"

    monkeypatch.setattr(self_check, "version", version)  # as where onnxruntime-gpu is installed
    assert FashionModel.from_pretrained(exported, device="cpu", backend="onnx").backend == "onnx fp32"
    assert asked == ["fashion-retrieval", "onnxruntime"]
    asked.clear()
    assert FashionModel.from_pretrained(folder, device="cpu", backend="onnx").backend == "onnx fp32"
    assert asked == ["fashion-retrieval", "torch", "onnx", "onnxruntime", "onnxscript"]
    assert len(list(cache.iterdir())) == 2


def test_load_without_a_writable_cache_compares_each_time(exported, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(constants, "HF_ASSETS_CACHE", str(tmp_path / "file"))
    assert FashionModel.from_pretrained(exported, device="cpu").backend == "onnx fp32"


def test_backend_that_is_far_off_is_refused_by_name_and_auto_takes_torch(exported, far_off):
    for _ in range(2):  # computed, then as it was kept
        line = r"^onnx fp32 computes otherwise on this processor: a drawn picture has a cosine of 0\.\d{4} to float32, "
        line += r"expected at least 0\.9999; use backend='torch', or export the model again on such a processor$"
        with pytest.raises(UnsupportedError, match=line):
            FashionModel.from_pretrained(exported, device="cpu", backend="onnx")
        with pytest.warns(RuntimeWarning, match="; torch computes instead") as told:
            model = FashionModel.from_pretrained(exported, device="cpu", dtype="float32")
        assert (model.backend, len(told)) == ("torch", 1)
    assert model.encode(images=drawn_photo()).shape == (1, 16)


def test_graphs_converted_now_are_compared_with_torch(folder, far_off, monkeypatch):
    monkeypatch.setattr("fashion_retrieval.backends.attach.convert", lambda *given: write_graphs(*given))
    with pytest.raises(UnsupportedError, match="onnx fp32 computes otherwise on this processor"):
        FashionModel.from_pretrained(folder, device="cpu", backend="onnx")


@pytest.mark.parametrize("backend", ["auto", "onnx"])
def test_golden_file_altered_missing_or_of_other_weights_is_one_line(exported, bundle, backend):
    path = exported / "onnx" / GOLDEN
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(WeightsError, match=r"golden\.safetensors was altered or cut off: .*; export the model again$"):
        FashionModel.from_pretrained(exported, device="cpu", backend=backend)
    path.unlink()
    with pytest.raises(WeightsError, match=r"^expected the file golden\.safetensors in .*; export the model again$"):
        FashionModel.from_pretrained(exported, device="cpu", backend=backend)
    golden_of(bundle).write(exported / "onnx", "0" * 64)
    replace(
        describe(bundle, exported / "onnx", backend="onnx", precision="fp32"),
        sha256={path.name: self_check.hashlib.sha256(path.read_bytes()).hexdigest()},
        default=True,
    ).write(exported / "onnx")
    with pytest.raises(
        WeightsError, match=r"golden vectors of another encoder \(0{12}…\) than .*export the model again"
    ):
        FashionModel.from_pretrained(exported, device="cpu", backend=backend)


def test_golden_file_with_something_else_in_it_is_refused(tmp_path):
    (tmp_path / GOLDEN).write_bytes(b"x")
    with pytest.raises(WeightsError, match=r"must hold pictures and their embeddings, got Safet.*export the model"):
        Golden.read(tmp_path, "0" * 64, (32, 32), 16)
    empty = np.empty((0, 4), np.float32)
    Golden(empty.astype(np.uint8), empty, (), empty).write(tmp_path, "0" * 64)
    with pytest.raises(
        WeightsError, match=r"must hold pictures and their embeddings, got \(0, 4\), .*; export the model"
    ):
        Golden.read(tmp_path, "0" * 64, (32, 32), 16)


def test_torch_in_bfloat16_that_is_far_off_is_float32_for_auto_and_warned_of_by_name(folder, processor, monkeypatch):
    processor(True)
    assert FashionModel.from_pretrained(folder, device="cpu").dtype == torch.bfloat16
    shutil.rmtree(constants.HF_ASSETS_CACHE)
    monkeypatch.setattr(Golden, "cosines", lambda *given: Cosines(0.5, 1))
    line = r"torch in bfloat16 computes otherwise on cpu: .* cosine of 0\.5000 to float32, expected at least 0\.9900; "
    with pytest.warns(RuntimeWarning, match=line + "float32 is computed instead") as told:
        assert FashionModel.from_pretrained(folder, device="cpu").dtype == torch.float32
    assert len(told) == 1
    with pytest.warns(RuntimeWarning, match=line + "use dtype='float32'"):
        assert FashionModel.from_pretrained(folder, device="cpu", dtype="bfloat16").dtype == torch.bfloat16


def test_bfloat16_on_a_processor_without_it_is_never_chosen_and_warns_by_name(folder, processor):
    processor(False)
    assert FashionModel.from_pretrained(folder, device="cpu").dtype == torch.float32
    with pytest.warns(
        RuntimeWarning, match=r"has no bfloat16 and emulates it, \d+ times slower than float32; use dtype"
    ):
        assert FashionModel.from_pretrained(folder, device="cpu", dtype="bfloat16").dtype == torch.bfloat16
    assert resolve_backend_dtype("openvino", "bf16", "auto") == "float32"
    with pytest.raises(
        InputError, match=r"needs a processor with AVX512-BF16 or AMX for bfloat16, .* use dtype='float32'"
    ):
        resolve_backend_dtype("openvino", "bf16", "bfloat16")
    with pytest.raises(InputError, match="bf16 is measured where it is exported, and this processor has none"):
        check_request("openvino", "bf16", calibrated=False)


def test_examine_tells_what_each_type_of_a_backend_computes(folder, exported, processor, far_off):
    processor(False)
    assert examine(folder, "torch") == {}
    processor(True)
    (torch_16,) = examine(folder, "torch").items()
    assert (torch_16[0], torch_16[1]["ok"]) == ("torch in bfloat16", True)
    assert 0.99 < torch_16[1]["picture"] <= 1
    (wrong,) = examine(exported, "onnx").items()
    assert (wrong[0], wrong[1]["ok"]) == ("onnx fp32 in float32", False)
    assert wrong[1]["text"] == pytest.approx(1, abs=1e-5)


def test_self_check_imports_no_torch():
    code = "import sys, fashion_retrieval.backends.self_check; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
