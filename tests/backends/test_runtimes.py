"""Programs of both runtimes: their results against torch, int8, and which layers stay float32."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fashion_retrieval import FashionModel
from fashion_retrieval.backends import trace
from fashion_retrieval.backends.attach import open_graphs
from fashion_retrieval.backends.compiled import ProgramComposer
from fashion_retrieval.backends.ready import by_torch
from fashion_retrieval.backends.runtimes import runtime_of
from fashion_retrieval.errors import UnsupportedError
from tests.support.exported_models import BACKENDS
from tests.support.tiny import drawn_photo

TEXTS = ["in red", "with long sleeves and a collar, please", "shorter"]

pytestmark = pytest.mark.filterwarnings("ignore")
"""Converters and quantizers warn; the package runs them in a child process."""


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("backend", BACKENDS)
def test_program_in_float32_equals_torch(converted, bundle, levels, backend, count):
    ready, plain = open_graphs(bundle, converted[backend], backend, "float32"), by_torch(bundle, "cpu", "float32")
    near = {"atol": 5e-6, "rtol": 2e-5}
    for method, given in (("encode_images", levels), ("image_tokens", levels), ("encode_texts", TEXTS)):
        ours, theirs = (getattr(one.towers, method)(given[:count]) for one in (ready, plain))
        np.testing.assert_allclose(ours, theirs, **near)
    text, images = plain.towers.text_tokens(TEXTS[:count]), plain.towers.image_tokens(levels[:count])
    for ours, theirs in zip(ready.towers.text_tokens(TEXTS[:count]), text, strict=True):
        np.testing.assert_allclose(ours, theirs, **near)
    np.testing.assert_allclose(ready.composer(images, *text), plain.composer(images, *text), **near)
    for ours, theirs in zip(ready.composer.parts(images, *text), plain.composer.parts(images, *text), strict=True):
        np.testing.assert_allclose(ours, theirs, **near)
    assert ready.towers.count_tokens(TEXTS) == plain.towers.count_tokens(TEXTS) == 17


@pytest.mark.parametrize("backend", BACKENDS)
def test_explain_by_a_program_is_of_what_the_program_composes(converted, bundle, backend):
    given = drawn_photo(), "in red"
    compiled = FashionModel(open_graphs(bundle, converted[backend], backend, "float32"), model_id="tiny")
    plain = FashionModel(bundle, model_id="tiny", device="cpu", dtype="float32").explain(*given)
    told = compiled.explain(*given)
    np.testing.assert_allclose(told.query, compiled.compose(*given), atol=1e-6)
    assert told.gates == plain.gates == (1, 0)
    assert told.photo == pytest.approx(plain.photo, abs=1e-4)
    assert dict(told.words) == pytest.approx(dict(plain.words), abs=1e-2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_composer_exported_with_a_weight_still_composes(bundle, levels, tmp_path, backend):
    def weighed(image, text, lengths, weight):
        kept, changed, _ = bundle.composer.parts(image, text, lengths)
        return nn.functional.normalize(2 * (1 - weight) * kept + 2 * weight * changed, dim=-1)

    inputs = {"image": (-1, 17, 16), "text": (-1, -1, 16), "lengths": (-1,), "weight": ()}
    graph, runtime = trace.trace_part("composer", bundle.composer, weighed, inputs, ("query",)), runtime_of(backend)
    runtime.convert(graph, tmp_path / f"composer{runtime.SUFFIX}")
    program = runtime.Program(tmp_path / f"composer{runtime.SUFFIX}", dtype="float32", threads=1)
    plain = by_torch(bundle, "cpu", "float32")
    tokens = plain.towers.image_tokens(levels), *plain.towers.text_tokens(TEXTS)
    composer = ProgramComposer(lambda name: program, plain.composer)
    np.testing.assert_allclose(composer(*tokens), plain.composer(*tokens), atol=5e-6, rtol=2e-5)
    for ours, theirs in zip(composer.parts(*tokens), plain.composer.parts(*tokens), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(UnsupportedError, match="no composer that explains itself; export the model again"):
        ProgramComposer(lambda name: program).parts(*tokens)


@pytest.mark.parametrize("backend", BACKENDS)
def test_program_shared_by_threads_gives_equal_rows(converted, bundle, levels, backend):
    towers = open_graphs(bundle, converted[backend], backend, "float32").towers
    with ThreadPoolExecutor(4) as pool:
        rows = list(pool.map(towers.encode_images, [levels] * 24))
    assert all(np.array_equal(row, rows[0]) for row in rows)


def test_openvino_program_in_bfloat16_keeps_cosines(converted, bundle, levels):
    expected = by_torch(bundle, "cpu", "float32").towers.encode_images(levels)
    got = open_graphs(bundle, converted["openvino"], "openvino", "bfloat16").towers.encode_images(levels)
    assert (expected * got).sum(1).min() > 0.9999


class Convolutions(nn.Module):
    """A small CNN whose first map is as wide as the photo.

    Args:
        spare_bit: Leave one of int8's 8 bits of the weights unused. CPUs without VNNI add two products of 8 bits in 16,
            which two large weights side by side overflow. So in each kernel the first weight alone is large and its
            neighbors are zero; all others are at most half as large.
    """

    def __init__(self, *, spare_bit):
        super().__init__()
        self.fine = nn.Conv2d(3, 8, 3, padding=1)
        self.coarse = nn.Conv2d(8, 16, 8, stride=8)
        if spare_bit:
            for weight in (self.fine.weight.data, self.coarse.weight.data):
                weight[:, 0, 0, 0] = 2 * weight.abs().max()
                weight[:, 1, 0, 0] = weight[:, 0, 0, 1] = 0

    def forward(self, *inputs):
        return self.coarse(self.fine(*inputs).clamp(0, 6)).mean((2, 3))


def traced_cnn(*, spare_bit):
    """A CNN, its graph, and photos for it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network, photos = Convolutions(spare_bit=spare_bit).eval(), torch.randn(6, 3, 32, 32)
    graph = trace.trace_part("image", network, network.forward, {"pixels": (-1, 3, 32, 32)}, ("pooled",))
    return network, graph, photos


@pytest.fixture(scope="module")
def cnn():
    return traced_cnn(spare_bit=True)


def test_openvino_convert_marks_high_resolution_layers_as_float32(cnn, tmp_path):
    runtime_of("openvino").convert(cnn[1], tmp_path / "image.xml")
    text = (tmp_path / "image.xml").read_text(encoding="utf-8")
    marked = [layer for layer in text.split("<layer ")[1:] if 'name="precise"' in layer]
    assert any('type="Convolution"' in layer for layer in marked)
    assert text.count('type="Convolution"') == 2
    assert sum('type="Convolution"' in layer for layer in marked) == 1
    assert all(">32<" in layer for layer in marked)


@pytest.mark.parametrize("spare_bit", [True, False])
@pytest.mark.parametrize("backend", BACKENDS)
def test_quantize_of_a_cnn_stays_close_to_float32(tmp_path, backend, spare_bit):
    network, graph, photos = traced_cnn(spare_bit=spare_bit)
    runtime = runtime_of(backend)
    path = tmp_path / f"image{runtime.SUFFIX}"
    runtime.convert(graph, path)
    runtime.quantize(path, [{"pixels": photo[None].numpy()} for photo in photos], convolutional=True)
    got = runtime.Program(path, dtype="float32", threads=1)("pooled", pixels=photos.numpy())
    expected = network(photos).detach().numpy()
    error = np.abs(got - expected).max() / np.abs(expected).max()
    assert 1e-5 < error < 0.03
    assert {file.stem for file in tmp_path.iterdir()} == {"image"}


@pytest.mark.parametrize("backend", BACKENDS)
def test_quantize_of_a_transformer_stays_close_to_float32(converted, bundle, pixels, tmp_path, backend):
    runtime = runtime_of(backend)
    for file in converted[backend].glob("image.*"):
        shutil.copy(file, tmp_path)
    path = tmp_path / f"image{runtime.SUFFIX}"
    runtime.quantize(path, [{"pixels": photo[None].numpy()} for photo in pixels], convolutional=False)
    got = runtime.Program(path, dtype="float32", threads=1)("pooled", pixels=pixels.numpy())
    with torch.inference_mode():
        expected = bundle.encoder.image_tokens(pixels)[:, 0].numpy()
    error = np.abs(got - expected).max() / np.abs(expected).max()
    assert 1e-5 < error < 0.03


AS_AVX2 = """
import sys, numpy as np
from pathlib import Path
from fashion_retrieval.backends.openvino import Program

folder = Path(sys.argv[1])
program = Program(folder / "image.xml", dtype="float32", threads=1)
np.save(folder / "got.npy", program("pooled", pixels=np.load(folder / "photos.npy")))
"""


def test_openvino_int8_of_a_cnn_stays_close_to_float32_without_vnni(tmp_path):
    network, graph, photos = traced_cnn(spare_bit=False)
    runtime_of("openvino").convert(graph, tmp_path / "image.xml")
    samples = [{"pixels": photo[None].numpy()} for photo in photos]
    runtime_of("openvino").quantize(tmp_path / "image.xml", samples, convolutional=True)
    np.save(tmp_path / "photos.npy", photos.numpy())
    old = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"}
    subprocess.run([sys.executable, "-c", AS_AVX2, str(tmp_path)], env=old, check=True)
    expected = network(photos).detach().numpy()
    error = np.abs(np.load(tmp_path / "got.npy") - expected).max() / np.abs(expected).max()
    assert 1e-5 < error < 0.03


@pytest.mark.parametrize("threads", [2, 3])
def test_openvino_program_with_a_large_batch_keeps_its_order(converted, cnn, bundle, levels, tmp_path, threads):
    runtime, (network, graph, photos) = runtime_of("openvino"), cnn
    runtime.convert(graph, tmp_path / "image.xml")
    program = runtime.Program(tmp_path / "image.xml", dtype="float32", threads=threads)
    for count in range(1, 7):
        got = program("pooled", pixels=photos[:count].numpy())
        np.testing.assert_allclose(got, network(photos[:count]).detach().numpy(), atol=1e-5)
    assert set(program._together) == set(program._streams) == {"pooled"}
    plain = by_torch(bundle, "cpu", "float32")
    composer = open_graphs(bundle, converted["openvino"], "openvino", "float32").composer
    tokens = [
        np.concatenate([part] * 5) for part in (plain.towers.image_tokens(levels), *plain.towers.text_tokens(TEXTS))
    ]
    np.testing.assert_allclose(composer(*tokens), plain.composer(*tokens), atol=5e-6, rtol=2e-5)


def test_a_model_in_a_runtime_keeps_the_modules_that_it_was_made_from(converted, bundle):
    assert open_graphs(bundle, converted["onnx"], "onnx", "float32").bundle() is bundle
    assert not list(Path(converted["onnx"]).glob("*.data"))
