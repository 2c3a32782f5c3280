"""Conversion in a child process, and tracing: what can't be converted is refused with one line."""

import subprocess
import sys

import numpy as np
import pytest

from fashion_retrieval import FashionModel, checkpoint
from fashion_retrieval._utils import child as children
from fashion_retrieval.backends import convert, trace
from fashion_retrieval.backends.ready import by_torch
from fashion_retrieval.errors import MissingExtraError, UnsupportedError
from tests.support.tiny import altered, drawn_photo, tiny_folder

TEXTS = ["in red", "with long sleeves and a collar, please", "shorter"]


def test_model_without_token_features_is_converted_on_loading(tmp_path):
    config = altered(
        vision_cfg={"layers": 1, "attentional_pool": True, "attn_pooler_queries": 4, "attn_pooler_heads": 2},
        text_cfg={"layers": 1, "width": 8, "no_causal_mask": True, "pool_type": "last", "context_length": 9},
        custom_text=True,
    )
    plain = checkpoint.load(tiny_folder(tmp_path, config))
    compiled, of_torch = (
        FashionModel.from_pretrained(tmp_path, backend="openvino").towers,
        by_torch(plain, "cpu", "float32"),
    )
    levels = [compiled.preprocessing.resize(drawn_photo())]
    np.testing.assert_allclose(compiled.encode_images(levels), of_torch.towers.encode_images(levels), atol=5e-6, rtol=0)
    np.testing.assert_allclose(compiled.encode_texts(TEXTS), of_torch.towers.encode_texts(TEXTS), atol=5e-6, rtol=0)
    with pytest.raises(UnsupportedError, match="token features"):
        compiled.image_tokens(levels)
    with pytest.raises(UnsupportedError, match="token features"):
        compiled.text_tokens(TEXTS)


@pytest.mark.filterwarnings("ignore")
def test_trace_of_data_dependent_code_is_refused(bundle):
    with pytest.raises(UnsupportedError, match=r"the image part can't be traced by torch\.export \(.+\); use backend="):
        trace.trace_part(
            "image",
            bundle.encoder,
            lambda pixels: pixels if pixels.sum() > 0 else -pixels,
            {"pixels": (-1, 3, 32, 32)},
            ("pooled",),
        )


@pytest.fixture
def child(monkeypatch):
    """A function that makes Python code the child of a conversion."""

    def replace(code, run=subprocess.run):
        monkeypatch.setattr(
            children.subprocess, "run", lambda command, **options: run([sys.executable, "-c", code], **options)
        )

    return replace


def test_convert_hands_on_an_error_of_the_child(folder, child, tmp_path):
    child(
        "import sys; sys.exit('a warning\\nfashion_retrieval refused: MissingExtraError: no nncf; install it: x\\nbye')"
    )
    with pytest.raises(MissingExtraError, match=r"^no nncf; install it: x$"):
        convert.convert(folder, "onnx", tmp_path)


@pytest.mark.parametrize(
    ("code", "reason"),
    [("raise RuntimeError('first')", "RuntimeError: first"), ("import os; os._exit(137)", "exit status 137")],
)
def test_convert_with_a_child_that_dies_is_refused(folder, child, tmp_path, code, reason):
    child(code)
    with pytest.raises(UnsupportedError, match=rf"can't be converted to onnx \({reason}\); use backend='torch'"):
        convert.convert(folder, "onnx", tmp_path)


def test_child_refuses_a_part_that_the_runtime_can_not_convert(folder, monkeypatch, tmp_path):
    def fail(graph, path):
        raise RuntimeError("no rule\nfor aten::odd")

    graph = trace.Graph(name="image", program=None, inputs={}, outputs=())
    monkeypatch.setattr(trace, "trace", lambda *parts: [graph])
    monkeypatch.setattr(convert.runtime_of("onnx"), "convert", fail)
    monkeypatch.setattr(sys, "argv", ["convert", "convert", "onnx", str(folder), str(tmp_path)])
    with pytest.raises(SystemExit) as left:  # Python prints the text to stderr and exits with status 1
        convert.main()
    refusal = "the image part can't be converted to onnx (no rule); use backend='torch'"
    assert left.value.code == f"fashion_retrieval refused: UnsupportedError: {refusal}"
