"""Backends: programs against torch, what `backend=` takes, and exported models that can't be used."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fashion_retrieval import FashionModel, checkpoint
from fashion_retrieval._utils import optional
from fashion_retrieval.backends import attach, trace
from fashion_retrieval.backends.attach import describe, open_graphs, runtime_of
from fashion_retrieval.backends.compiled import CompiledComposer, CompiledEncoder
from fashion_retrieval.checkpoint import export_manifest
from fashion_retrieval.errors import ConfigError, InputError, MissingExtraError, UnsupportedError, WeightsError
from tests.support.exported_models import BACKENDS, model_folder, write_graphs
from tests.support.tiny import altered, contents, drawn_photo, tiny_folder

TEXTS = ["in red", "with long sleeves and a collar, please", "shorter"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return model_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def bundle(folder):
    return checkpoint.load(folder)


@pytest.fixture(scope="module")
def converted(bundle, tmp_path_factory):
    """Backend -> folder with the model's graphs."""
    folders = {backend: tmp_path_factory.mktemp(backend) for backend in BACKENDS}
    for backend, folder in folders.items():
        write_graphs(bundle, backend, folder)
    return folders


@pytest.fixture
def exported(bundle, folder, converted, tmp_path):
    """A function that writes a model folder with an exported model."""

    def write(backend="openvino", precision="fp32", *, default=True, **changes):
        shutil.copytree(folder, tmp_path / "model", dirs_exist_ok=True)
        shutil.copytree(converted[backend], tmp_path / "model" / backend)
        made = describe(bundle, converted[backend], backend=backend, precision=precision)
        replace(made, default=default, **changes).write(tmp_path / "model" / backend)
        return tmp_path / "model"

    return write


@pytest.fixture(scope="module")
def pixels(bundle):
    return torch.stack([bundle.encoder.preprocess(drawn_photo(seed=seed)) for seed in range(3)])


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("backend", BACKENDS)
def test_programs_give_what_torch_gives(converted, bundle, pixels, backend, count):
    compiled = open_graphs(bundle, converted[backend], backend, "float32")
    encoder, tokens = bundle.encoder, bundle.encoder.tokenize(TEXTS[:count])
    near = {"atol": 5e-6, "rtol": 2e-5}
    with torch.inference_mode():
        for method, given in (("encode_image", pixels), ("image_tokens", pixels), ("encode_text", tokens)):
            given = given[:count]
            torch.testing.assert_close(
                getattr(compiled.encoder, method)(given), getattr(encoder, method)(given), **near
            )
        text, images = encoder.text_tokens(tokens), encoder.image_tokens(pixels[:count])
        torch.testing.assert_close(compiled.encoder.text_tokens(tokens), text, **near)
        for weight in (0.5, 0.9):
            expected = bundle.composer(images, *text, text_weight=weight)
            torch.testing.assert_close(compiled.composer(images, *text, text_weight=weight), expected, **near)


@pytest.mark.parametrize("backend", BACKENDS)
def test_threads_may_share_a_program(converted, bundle, pixels, backend):
    encoder = open_graphs(bundle, converted[backend], backend, "float32").encoder
    with ThreadPoolExecutor(4) as pool:
        rows = list(pool.map(encoder.encode_image, [pixels] * 24))
    assert all(torch.equal(row, rows[0]) for row in rows)


def test_bfloat16_is_a_hint(converted, bundle, pixels):
    with torch.inference_mode():
        expected = bundle.encoder.encode_image(pixels)
        got = open_graphs(bundle, converted["openvino"], "openvino", "bfloat16").encoder.encode_image(pixels)
    assert (expected * got).sum(1).min() > 0.9999


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_exported_model_stands_in_for_torch(exported, folder, backend, tmp_path):
    plain = FashionModel.from_pretrained(folder, dtype="float32")
    model = FashionModel.from_pretrained(exported(backend), device="cpu")
    assert isinstance(model.encoder, CompiledEncoder)
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


def test_auto_takes_what_kept_its_parity(exported, monkeypatch):
    folder = exported("onnx", default=False)
    assert not isinstance(FashionModel.from_pretrained(folder, device="cpu").encoder, CompiledEncoder)
    assert isinstance(FashionModel.from_pretrained(folder, device="cpu", backend="onnx").encoder, CompiledEncoder)
    exported("openvino")
    assert isinstance(FashionModel.from_pretrained(folder, device="cpu").encoder, CompiledEncoder)
    assert not isinstance(FashionModel.from_pretrained(folder, backend="torch").encoder, CompiledEncoder)
    monkeypatch.setattr(export_manifest, "find_spec", lambda package: None)
    assert not isinstance(FashionModel.from_pretrained(folder, device="cpu").encoder, CompiledEncoder)


@pytest.mark.parametrize(
    ("precision", "backend", "dtype", "expected"),
    [
        ("fp32", "openvino", "auto", "float32"),
        ("fp32", "openvino", "bfloat16", "bfloat16"),
        ("int8", "onnx", "auto", "float32"),
        ("bf16", "openvino", "float32", "float32"),
    ],
)
def test_types(precision, backend, dtype, expected):
    assert attach.resolve(backend, precision, dtype) == expected


@pytest.mark.parametrize(
    ("backend", "dtype", "precision", "exact"),
    [
        ("openvino", "float32", "fp32", True),
        ("openvino", "bfloat16", "fp32", False),
        ("openvino", "float32", "bf16", True),
        ("onnx", "float32", "int8", False),
    ],
)
def test_preprocessing_is_exact_in_float32(converted, bundle, backend, dtype, precision, exact):
    opened = open_graphs(bundle, converted[backend], backend, dtype, precision)
    assert opened.encoder.preprocessing == replace(bundle.encoder.preprocessing, exact=exact)


def test_auto_type_is_the_precision_that_was_measured(monkeypatch):
    monkeypatch.setattr(attach, "resolve_dtype", lambda dtype, device: torch.bfloat16)
    assert attach.resolve("openvino", "bf16", "auto") == "bfloat16"
    assert attach.resolve("openvino", "int8", "auto") == "bfloat16"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "tensorrt"}, "backend must be 'auto', 'torch', 'openvino' or 'onnx', got 'tensorrt'; use 'auto'"),
        ({"backend": "onnx", "dtype": "bfloat16"}, "'onnx' computes in 'float32', got dtype 'bfloat16'"),
        ({"backend": "openvino", "dtype": "float16"}, "computes in 'float32' or 'bfloat16', got dtype 'float16'"),
    ],
)
def test_what_a_backend_does_not_have(folder, options, message):
    with pytest.raises(InputError, match=message):
        FashionModel.from_pretrained(folder, **options)


def test_other_devices(folder, monkeypatch):
    for module in ("model", "backends.attach"):
        monkeypatch.setattr(f"fashion_retrieval.{module}.resolve_device", lambda device: torch.device("cuda"))
    with pytest.raises(InputError, match="backend 'onnx' computes on the CPU, got device 'cuda'; use device='cpu'"):
        FashionModel.from_pretrained(folder, backend="onnx", device="cuda")


@pytest.mark.parametrize("part", ["encoder", "composer"])
def test_an_export_of_another_model_is_refused(exported, part):
    folder = exported(**{part: "0" * 64})
    with pytest.raises(WeightsError, match=rf"exported from another {part} \(0{{12}}…\) than the one beside it \("):
        FashionModel.from_pretrained(folder, device="cpu")


def test_damaged_exports_are_refused(exported):
    folder = exported()
    graph = folder / "openvino" / "text.bin"
    graph.write_bytes(graph.read_bytes()[:-1])
    with pytest.raises(WeightsError, match=r"text\.bin was altered or cut off: expected sha256"):
        FashionModel.from_pretrained(folder, device="cpu")
    graph.unlink()
    with pytest.raises(WeightsError, match=r"expected the file text\.bin in .*, found none; export the model again"):
        FashionModel.from_pretrained(folder, device="cpu")


def test_faults_of_an_export_file_come_together(exported):
    path = exported() / "openvino" / "export.json"
    good = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(good | {"precision": "int4", "sha256": {"../x": "0" * 64}, "odd": 1}), encoding="utf-8")
    with pytest.raises(
        ConfigError, match=r"has 3 fault\(s\): 'precision' must be one of .*; 'sha256' .*; unknown keys odd"
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
def test_a_missing_extra(exported, monkeypatch, backend, package):
    def fail(name):
        raise ModuleNotFoundError(f"No module named {name!r}")

    folder = exported(backend)
    monkeypatch.setattr(optional, "import_module", fail)
    with pytest.raises(MissingExtraError, match=rf"{package} .*; run: pip install 'fashion-retrieval\[{backend}\]'"):
        FashionModel.from_pretrained(folder, device="cpu", backend=backend)


class Convolutions(nn.Module):
    """A small CNN whose first map is as wide as the photo."""

    def __init__(self):
        super().__init__()
        self.fine = nn.Conv2d(3, 8, 3, padding=1)
        self.coarse = nn.Conv2d(8, 16, 8, stride=8)

    def forward(self, *inputs):
        return self.coarse(self.fine(*inputs).clamp(0, 6)).mean((2, 3))


@pytest.fixture(scope="module")
def cnn():
    """A CNN, its graph, and photos for it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network, photos = Convolutions().eval(), torch.randn(6, 3, 32, 32)
    part = trace._Part(network, lambda module, pixels: module(pixels))
    return network, trace._record("image", part, {"pixels": (-1, 3, 32, 32)}, ("pooled",)), photos


def test_fine_maps_stay_float32(cnn, tmp_path):
    runtime_of("openvino").convert(cnn[1], tmp_path / "image.xml")
    text = (tmp_path / "image.xml").read_text(encoding="utf-8")
    marked = [layer for layer in text.split("<layer ")[1:] if 'name="precise"' in layer]
    assert any('type="Convolution"' in layer for layer in marked)
    assert text.count('type="Convolution"') == 2
    assert sum('type="Convolution"' in layer for layer in marked) == 1
    assert all(">32<" in layer for layer in marked)


@pytest.mark.parametrize("backend", BACKENDS)
def test_int8_of_a_cnn(cnn, tmp_path, backend):
    network, graph, photos = cnn
    runtime = runtime_of(backend)
    path = tmp_path / f"image{runtime.SUFFIX}"
    runtime.convert(graph, path)
    runtime.quantize(path, [{"pixels": photo[None].numpy()} for photo in photos], attends=False)
    got = runtime.Program(path, dtype="float32", threads=1)("pooled", pixels=photos.numpy())
    expected = network(photos).detach().numpy()
    error = np.abs(got - expected).max() / np.abs(expected).max()
    assert 1e-5 < error < 0.1
    assert {file.stem for file in tmp_path.iterdir()} == {"image"}


@pytest.mark.parametrize("backend", BACKENDS)
def test_int8_of_a_transformer(converted, bundle, pixels, tmp_path, backend):
    runtime = runtime_of(backend)
    for file in converted[backend].glob("image.*"):
        shutil.copy(file, tmp_path)
    path = tmp_path / f"image{runtime.SUFFIX}"
    runtime.quantize(path, [{"pixels": photo[None].numpy()} for photo in pixels], attends=True)
    got = runtime.Program(path, dtype="float32", threads=1)("pooled", pixels=pixels.numpy())
    with torch.inference_mode():
        expected = bundle.encoder.image_tokens(pixels)[:, 0].numpy()
    error = np.abs(got - expected).max() / np.abs(expected).max()
    assert 1e-5 < error < 0.1


@pytest.mark.parametrize("threads", [2, 3])
def test_a_batch_computed_side_by_side_is_in_order(converted, cnn, bundle, pixels, tmp_path, threads):
    runtime, (network, graph, photos) = runtime_of("openvino"), cnn
    runtime.convert(graph, tmp_path / "image.xml")
    program = runtime.Program(tmp_path / "image.xml", dtype="float32", threads=threads)
    for count in range(1, 7):
        got = program("pooled", pixels=photos[:count].numpy())
        np.testing.assert_allclose(got, network(photos[:count]).detach().numpy(), atol=1e-5)
    assert set(program._together) == set(program._streams) == {"pooled"}
    composer = open_graphs(bundle, converted["openvino"], "openvino", "float32").composer
    with torch.inference_mode():
        images = bundle.encoder.image_tokens(pixels).repeat(5, 1, 1)
        text = [given.repeat(5, *[1] * (given.ndim - 1)) for given in bundle.encoder.text_tokens(
            bundle.encoder.tokenize(TEXTS)
        )]  # fmt: skip
        for weight in (0.2, 0.8):
            expected = bundle.composer(images, *text, text_weight=weight)
            torch.testing.assert_close(composer(images, *text, text_weight=weight), expected, atol=5e-6, rtol=2e-5)


def test_a_model_without_token_features_converted_on_loading(tmp_path):
    config = altered(
        vision_cfg={"layers": 1, "attentional_pool": True, "attn_pooler_queries": 4, "attn_pooler_heads": 2},
        text_cfg={"layers": 1, "width": 8, "no_causal_mask": True, "pool_type": "last", "context_length": 9},
        custom_text=True,
    )
    plain = checkpoint.load(tiny_folder(tmp_path, config))
    compiled = FashionModel.from_pretrained(tmp_path, backend="openvino").encoder
    photo, tokens = plain.encoder.preprocess(drawn_photo())[None], plain.encoder.tokenize(TEXTS)
    with torch.inference_mode():
        torch.testing.assert_close(compiled.encode_image(photo), plain.encoder.encode_image(photo), atol=5e-6, rtol=0)
        torch.testing.assert_close(compiled.encode_text(tokens), plain.encoder.encode_text(tokens), atol=5e-6, rtol=0)
        with pytest.raises(UnsupportedError, match="token features"):
            compiled.image_tokens(photo)
        with pytest.raises(UnsupportedError, match="token features"):
            compiled.text_tokens(tokens)


def test_what_can_not_be_recorded(bundle):
    part = trace._Part(bundle.encoder, lambda encoder, pixels: pixels if pixels.sum() > 0 else -pixels)
    with pytest.raises(
        UnsupportedError, match=r"the image part can't be recorded by torch\.export \(.+\); use backend="
    ):
        trace._record("image", part, {"pixels": (-1, 3, 32, 32)}, ("pooled",))


def test_a_compiled_model_shares_its_weights(converted, bundle):
    compiled = open_graphs(bundle, converted["onnx"], "onnx", "float32")
    assert isinstance(compiled.composer, CompiledComposer)
    for ours, theirs in ((compiled.encoder, bundle.encoder), (compiled.composer, bundle.composer)):
        assert all(a is b for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    assert not list(Path(converted["onnx"]).glob("*.data"))


def test_what_a_runtime_can_not_convert(bundle, monkeypatch, tmp_path):
    def fail(graph, path):
        raise RuntimeError("no rule\nfor aten::odd")

    monkeypatch.setattr(
        attach, "trace", lambda encoder, composer: [trace.Graph(name="image", program=None, inputs={}, outputs=())]
    )
    monkeypatch.setattr(runtime_of("onnx"), "convert", fail)
    with pytest.raises(
        UnsupportedError, match=r"the image part can't be converted to onnx \(no rule\); use backend='torch'"
    ):
        attach.convert(bundle, "onnx", tmp_path)
