from __future__ import annotations

import copy
import hashlib
import json
import logging
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from fashion_retrieval import checkpoint
from fashion_retrieval._utils import files
from fashion_retrieval._utils.files import sha256
from fashion_retrieval.checkpoint.export_manifest import Export
from fashion_retrieval.checkpoint.extras import Extras
from fashion_retrieval.checkpoint.folder import Bundle
from fashion_retrieval.checkpoint.layout import published_files
from fashion_retrieval.config import ComposerConfig, ModelConfig, SegmenterConfig
from fashion_retrieval.errors import ConfigError, InputError, MissingExtraError, WeightsError
from fashion_retrieval.models.composer import Composer
from fashion_retrieval.models.open_clip_encoder import build_encoder
from fashion_retrieval.taxonomy import Taxonomy
from tests.support.tiny import TINY_CONFIG, altered, contents, drawn_photo, saved_folder, tiny_clip, tiny_folder

TEXTS = ["a photo of a red dress", "jeans", "a long navy coat with a very large number of shiny golden buttons"]
WEIGHTS = "open_clip_model.safetensors"
SEGMENTER = SegmenterConfig(
    architecture="stub", image_size=(8, 8), classes=("upper", "bag"), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
)
CUSTOM_TEXT = altered(custom_text=True, quick_gelu=True)
TIMM = altered(
    custom_text=True,
    embed_dim=64,
    init_logit_bias=-10,
    text_cfg={
        "context_length": 12,
        "vocab_size": 8,
        "hf_tokenizer_name": "some/where",
        "tokenizer_kwargs": {"clean": "canonicalize"},
        "no_causal_mask": True,
        "proj_bias": True,
        "pool_type": "last",
    },
) | {"preprocess_cfg": {"resize_mode": "squash", "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}}
TIMM["model_cfg"]["vision_cfg"] = {
    "image_size": 160,
    "timm_model_name": "test_vit",
    "timm_model_pretrained": True,
    "timm_pool": "map",
    "timm_proj": "none",
}


def siglip_folder(folder: Path) -> Path:
    """As Marqo's SigLIP: a timm image tower, a bidirectional text tower, a logit bias, a tokenizer in the folder."""
    config = copy.deepcopy(TIMM)
    config["model_cfg"]["vision_cfg"]["timm_model_pretrained"] = False
    tiny_folder(folder, config)
    (folder / "open_clip_config.json").write_text(json.dumps(TIMM), encoding="utf-8")
    words = {"</s>": 1, "<unk>": 2, "red": 3, "dress": 4, "jeans": 5, "a": 6, "photo": 7}
    tokenizer = {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "<unk>"},
    }
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    return tiny_folder(tmp_path / "plain")


@pytest.fixture
def ours(tmp_path: Path, plain: Path) -> Path:
    return saved_folder(tmp_path / "ours", plain)


class StubSegmenter(nn.Module):
    def __init__(self, config: SegmenterConfig) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, len(config.classes), 3)
        self.norm = nn.BatchNorm2d(len(config.classes))


@pytest.fixture
def stub_segmenter(monkeypatch: pytest.MonkeyPatch) -> type[StubSegmenter]:
    module = ModuleType("fashion_retrieval.models.segmenter")
    monkeypatch.setattr(module, "GarmentSegmenter", StubSegmenter, raising=False)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return StubSegmenter


@pytest.mark.parametrize("config", [TINY_CONFIG, CUSTOM_TEXT], ids=["clip", "custom_text"])
def test_embeddings_equal_open_clips(tmp_path: Path, config: dict[str, Any]) -> None:
    folder = tiny_folder(tmp_path, config)
    bundle = checkpoint.load(folder)
    encoder = bundle.encoder
    clip, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    clip.eval()
    photos = [drawn_photo((40, 90), seed=1), drawn_photo((90, 40), seed=2)]
    tokens = encoder.tokenize(TEXTS)
    full = open_clip.get_tokenizer(f"local-dir:{folder}")(TEXTS)
    with torch.inference_mode():
        pixels = torch.stack([transform(photo) for photo in photos])
        images, expected = encoder.encode_image(pixels), clip.encode_image(pixels, normalize=True)
        own = encoder.encode_image(torch.stack([encoder.pixels(photo) for photo in photos]))
        texts, expected_texts = encoder.encode_text(tokens), clip.encode_text(full, normalize=True)
    assert bundle.config is None
    assert bundle.tokenizer_files == {}
    assert not encoder.training
    assert tokens.shape == (3, 15)
    assert full.shape == (3, 77)
    torch.testing.assert_close(images, expected, atol=1e-6, rtol=0)
    assert (own * expected).sum(1).min() > 0.99999  # our resizing differs by a level here and there
    torch.testing.assert_close(texts, expected_texts, atol=1e-5, rtol=0)
    assert (images[0] - images[1]).abs().max() > 1e-3
    assert (texts[0] - texts[1]).abs().max() > 1e-3


def test_siglip_model_loads_with_its_own_tokenizer(tmp_path: Path) -> None:
    folder = siglip_folder(tmp_path / "source")
    checkpoint.save(checkpoint.load(folder), tmp_path / "saved")
    for place in (folder, tmp_path / "saved"):
        bundle = checkpoint.load(place)
        encoder = bundle.encoder
        clip, _, transform = open_clip.create_model_and_transforms(f"local-dir:{place}")
        clip.eval()
        photo = drawn_photo(seed=3)
        tokens = encoder.tokenize(["a photo, red  DRESS!", "jeans"])
        with torch.inference_mode():
            pixels = transform(photo)[None]
            expected = clip.encode_image(pixels, True)
            torch.testing.assert_close(encoder.encode_image(pixels), expected, atol=1e-6, rtol=0)
            assert (encoder.encode_image(encoder.preprocess(photo)[None]) * expected).sum() > 0.99999
            torch.testing.assert_close(encoder.encode_text(tokens), clip.encode_text(tokens, True), atol=1e-5, rtol=0)
        assert tokens.tolist() == [[6, 7, 3, 4, *[1] * 8], [5, *[1] * 11]]
        assert encoder.clip.logit_bias is not None
        assert encoder.image_size == (160, 160)
        assert set(bundle.tokenizer_files) == {"tokenizer.json", "tokenizer_config.json", "tokenizer_ids.json"}
    assert contents(tmp_path / "saved")["tokenizer.json"] == contents(folder)["tokenizer.json"]


def test_a_tokenizer_that_needs_transformers_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = siglip_folder(tmp_path)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'fashion-retrieval\[hf\]'"):
        checkpoint.load(folder)


def test_a_missing_tokenizer_is_a_config_error(tmp_path: Path) -> None:
    folder = siglip_folder(tmp_path)
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(ConfigError, match=r"the tokenizer in .* can't be read"):
        checkpoint.load(folder)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_save_of_a_loaded_model_is_byte_identical(tmp_path: Path, plain: Path, dtype: str) -> None:
    config = ModelConfig(name="tiny", weights_dtype=dtype, calibration={"sleeve": 2}, figures={"b": 1.0, "a": 0.5})
    checkpoint.save(replace(checkpoint.load(plain), config=config), tmp_path / "one")
    checkpoint.save(checkpoint.load(tmp_path / "one"), tmp_path / "two")
    one = contents(tmp_path / "one")
    assert set(one) == {"open_clip_config.json", WEIGHTS, "fashion_retrieval.json"}
    assert contents(tmp_path / "two") == one
    with safe_open(tmp_path / "one" / WEIGHTS, framework="pt") as file:
        assert file.metadata() == {"format": "pt"}
        assert file.get_tensor("ln_final.weight").dtype == getattr(torch, dtype)
        assert list(file.keys()) == sorted(file.keys())
    digest = hashlib.sha256(one[WEIGHTS]).hexdigest()
    assert json.loads(one["fashion_retrieval.json"])["sha256"][WEIGHTS] == digest


def test_half_weights_come_back_as_their_rounding_in_float32(plain: Path, ours: Path) -> None:
    half = checkpoint.load(ours).encoder.clip.state_dict()
    for name, tensor in load_file(plain / WEIGHTS).items():
        assert half[name].dtype == torch.float32
        assert torch.equal(half[name], tensor.half().float())


def test_plain_open_clip_loads_the_saved_encoder(ours: Path) -> None:
    encoder = checkpoint.load(ours).encoder
    clip, _, transform = open_clip.create_model_and_transforms(f"local-dir:{ours}")
    clip.eval()
    photo = drawn_photo(seed=4)
    with torch.inference_mode():
        images = encoder.encode_image(encoder.preprocess(photo)[None])
        texts = encoder.encode_text(encoder.tokenize(TEXTS))
        tokens = open_clip.get_tokenizer(f"local-dir:{ours}")(TEXTS)
        torch.testing.assert_close(images, clip.encode_image(transform(photo)[None], True), atol=1e-6, rtol=0)
        torch.testing.assert_close(texts, clip.encode_text(tokens, True), atol=1e-6, rtol=0)


def test_a_plain_model_is_saved_with_a_default_config(tmp_path: Path, plain: Path) -> None:
    checkpoint.save(checkpoint.load(plain), tmp_path / "new" / "my-model")
    config = checkpoint.load(tmp_path / "new" / "my-model").config
    assert config is not None
    assert config.encoder == checkpoint.load(plain).encoder.fingerprint
    assert replace(config, encoder=None, sha256={}) == ModelConfig(name="my-model")
    assert set(config.sha256) == {WEIGHTS, "open_clip_config.json"}


def test_save_into_its_own_folder_keeps_other_files(ours: Path) -> None:
    before = contents(ours)
    (ours / "README.md").write_text("card", encoding="utf-8")
    (ours / "segmenter.safetensors").write_bytes(b"of an earlier model")
    checkpoint.save(checkpoint.load(ours), ours)
    assert contents(ours) == before | {"README.md": b"card"}
    assert sorted(path.name for path in ours.parent.iterdir()) == ["ours", "plain"]


def test_a_failed_save_leaves_the_old_model_in_place(ours: Path) -> None:
    before = contents(ours)
    bundle = checkpoint.load(ours)
    with torch.no_grad():
        bundle.encoder.clip.visual.proj[0, 0] = 70_000
    with pytest.raises(WeightsError, match=r"visual\.proj must be finite in float16"):
        checkpoint.save(bundle, ours)
    assert contents(ours) == before
    assert sorted(path.name for path in ours.parent.iterdir()) == ["ours", "plain"]


def test_saving_to_a_file_is_refused(plain: Path) -> None:
    with pytest.raises(InputError, match="is a file"):
        checkpoint.save(checkpoint.load(plain), plain / WEIGHTS)


def test_a_faulty_config_is_not_saved(tmp_path: Path, plain: Path) -> None:
    bundle = replace(checkpoint.load(plain), config=ModelConfig(name="tiny", thresholds={"sleeve": 7.0}))
    with pytest.raises(ConfigError, match="thresholds"):
        checkpoint.save(bundle, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_segmenter_saved_and_loaded_is_the_same(tmp_path: Path, plain: Path, stub_segmenter: type[Any]) -> None:
    segmenter = stub_segmenter(SEGMENTER)
    segmenter.norm.num_batches_tracked += 3
    config = ModelConfig(name="tiny", weights_dtype="float16", segmenter=SEGMENTER)
    bundle = Bundle(encoder=checkpoint.load(plain).encoder, segmenter=segmenter, config=config)
    checkpoint.save(bundle, tmp_path / "one")
    again = checkpoint.load(tmp_path / "one")
    checkpoint.save(again, tmp_path / "two")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert again.config is not None
    assert again.config.segmenter == SEGMENTER
    assert again.segmenter is not None
    assert not again.segmenter.training
    state = again.segmenter.state_dict()
    assert torch.equal(state["conv.weight"], segmenter.conv.weight.half().float())
    assert state["norm.num_batches_tracked"].item() == 3
    assert "segmenter.safetensors" in again.config.sha256


@pytest.mark.parametrize("config", [None, ModelConfig(name="tiny")])
def test_a_segmenter_without_its_config_is_not_saved(
    tmp_path: Path, plain: Path, stub_segmenter: type[Any], config: ModelConfig | None
) -> None:
    bundle = replace(checkpoint.load(plain), segmenter=stub_segmenter(SEGMENTER), config=config)
    with pytest.raises(ConfigError, match=r"set config\.segmenter"):
        checkpoint.save(bundle, tmp_path / "new")


def test_segmenter_weights_load_strictly(tmp_path: Path, plain: Path, stub_segmenter: type[Any]) -> None:
    config = ModelConfig(name="tiny", segmenter=SEGMENTER)
    folder = tmp_path / "one"
    checkpoint.save(replace(checkpoint.load(plain), segmenter=stub_segmenter(SEGMENTER), config=config), folder)
    save_file({"conv.weight": torch.zeros(2, 3, 3, 3)}, folder / "segmenter.safetensors")
    config_file = folder / "fashion_retrieval.json"
    config_file.write_text(json.dumps(json.loads(config_file.read_text()) | {"sha256": {}}), encoding="utf-8")
    with pytest.raises(WeightsError, match=r"segmenter\.safetensors.*missing: conv\.bias"):
        checkpoint.load(folder)


def test_load_prints_and_logs_nothing(
    plain: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.DEBUG):
        checkpoint.load(plain)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert "random" not in caplog.text
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("config", [TINY_CONFIG, CUSTOM_TEXT], ids=["clip", "custom_text"])
def test_load_leaves_buffers_without_weights_as_initialized(tmp_path: Path, config: dict[str, Any]) -> None:
    """Masks are buffers that are never saved; all that is has the values of the file."""
    loaded = checkpoint.load(tiny_folder(tmp_path, config, seed=5)).encoder.clip
    wanted = tiny_clip(config, seed=5)
    for kind in ("named_parameters", "named_buffers"):
        pairs = list(zip(getattr(loaded, kind)(), getattr(wanted, kind)(), strict=True))
        assert pairs
        for (name, value), (same, expected) in pairs:
            assert name == same
            assert (value.dtype, value.requires_grad) == (expected.dtype, expected.requires_grad)
            assert torch.equal(value, expected), name


def test_an_encoder_is_built_from_a_config_that_is_not_on_disk(tmp_path: Path) -> None:
    config = copy.deepcopy(TIMM)
    del config["model_cfg"]["text_cfg"]["hf_tokenizer_name"]
    before = copy.deepcopy(config)
    encoder = build_encoder(config, tmp_path / "nowhere")
    assert encoder.clip.logit_bias is not None
    assert encoder.clip.logit_bias.item() == -10
    assert encoder.logit_scale == pytest.approx(1 / 0.07)
    assert config == before


def test_load_reads_weights_with_older_names_of_open_clip(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path, CUSTOM_TEXT, seed=5)
    new = load_file(folder / WEIGHTS)
    old = {name.removeprefix("text."): tensor for name, tensor in new.items()}
    save_file(old | {"logit_scale": new["logit_scale"].reshape(1)}, folder / WEIGHTS)
    state = checkpoint.load(folder).encoder.clip.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in new.items())


def test_load_segmenter_reads_nothing_but_the_segmenter(tmp_path: Path, plain: Path, stub_segmenter: type[Any]) -> None:
    config = ModelConfig(name="tiny", segmenter=SEGMENTER)
    segmenter = stub_segmenter(SEGMENTER)
    folder = tmp_path / "one"
    checkpoint.save(replace(checkpoint.load(plain), segmenter=segmenter, config=config), folder)
    (folder / WEIGHTS).unlink()
    found: Any = checkpoint.load_segmenter(folder)
    assert torch.equal(found.conv.weight, segmenter.conv.weight)
    (folder / "segmenter.safetensors").write_bytes(b"x")
    with pytest.raises(WeightsError, match=r"segmenter\.safetensors was altered or cut off"):
        checkpoint.load_segmenter(folder)
    assert checkpoint.load_segmenter(plain) is None


def exported_from(encoder: str, folder: Path, name: str) -> None:
    (folder / name).mkdir(parents=True)
    Export(backend=name, precision="fp32", default=True, encoder=encoder, composer=None, sha256={"a": "0" * 64}).write(
        folder / name
    )


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_save_keeps_an_export_of_the_same_weights_and_removes_one_of_others(
    tmp_path: Path, plain: Path, dtype: str
) -> None:
    bundle = replace(checkpoint.load(plain), config=ModelConfig(name="tiny", weights_dtype=dtype))
    checkpoint.save(bundle, tmp_path / "one")
    stored = checkpoint.load(tmp_path / "one").encoder.fingerprint
    assert bundle.encoder.stored_fingerprint(getattr(torch, dtype)) == stored
    exported_from(stored, tmp_path / "one", "openvino")
    exported_from("0" * 64, tmp_path / "one", "onnx")
    (tmp_path / "one" / "notes").mkdir()
    checkpoint.save(bundle, tmp_path / "one")
    assert sorted(path.name for path in (tmp_path / "one").iterdir() if path.is_dir()) == ["notes", "openvino"]
    checkpoint.save(checkpoint.load(tiny_folder(tmp_path / "other", seed=7)), tmp_path / "one")
    assert sorted(path.name for path in (tmp_path / "one").iterdir() if path.is_dir()) == ["notes"]


def test_save_removes_an_export_of_other_photo_settings_words_or_composer_and_keeps_one_of_other_additions(
    tmp_path: Path, plain: Path
) -> None:
    bundle, one = checkpoint.load(plain), tmp_path / "one"
    bundle = replace(bundle, tokenizer_files={"tokenizer.json": b"{}"})
    digest = bundle.encoder.fingerprint
    checkpoint.save(bundle, one)
    basis = np.eye(bundle.encoder.embedding_dim, dtype=np.float32)
    exported_from(digest, one, "onnx")
    checkpoint.save(
        replace(bundle, extras=Extras(basis=basis)), one
    )  # the graphs know nothing of the order of coordinates
    assert (one / "onnx" / "export.json").is_file()
    shape = ComposerConfig(embedding_dim=16, width=16, depth=1, heads=2, hidden=16, encoder=digest)
    composed = replace(bundle, composer=Composer(shape), config=ModelConfig(name="tiny", composer=shape))
    darker = checkpoint.load(plain)
    darker.encoder.config = {**darker.encoder.config, "preprocess_cfg": {"mean": [0.1, 0.1, 0.1]}}
    for other in (replace(bundle, tokenizer_files={"tokenizer.json": b"{ }"}), composed, darker):
        checkpoint.save(bundle, one)
        if not (one / "onnx").exists():
            exported_from(digest, one, "onnx")
        checkpoint.save(other, one)
        assert not (one / "onnx").exists()


def test_load_hashes_each_file_once(tmp_path: Path, plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = checkpoint.load(plain).encoder
    shape = ComposerConfig(embedding_dim=16, width=16, depth=1, heads=2, hidden=16, encoder=encoder.fingerprint)
    bundle = Bundle(encoder=encoder, composer=Composer(shape), config=ModelConfig(name="tiny", composer=shape))
    checkpoint.save(bundle, tmp_path / "one")
    hashed: list[str] = []
    monkeypatch.setattr(files, "sha256", lambda path: hashed.append(path.name) or sha256(path))
    checkpoint.load(tmp_path / "one")
    assert sorted(hashed) == ["composer.safetensors", "open_clip_config.json", "open_clip_model.safetensors"]
    altered_weights = load_file(tmp_path / "one" / WEIGHTS)
    altered_weights["visual.proj"][0, 0] += 1
    save_file(altered_weights, tmp_path / "one" / WEIGHTS)
    with pytest.raises(WeightsError, match=r"open_clip_model\.safetensors was altered or cut off"):
        checkpoint.load(tmp_path / "one")


def test_save_after_a_kill_leaves_no_hidden_file_to_publish(ours: Path) -> None:
    (ours / ".0123.partial.safetensors").write_bytes(b"half")
    assert {file.name for file in published_files(ours)} == {WEIGHTS, "open_clip_config.json", "fashion_retrieval.json"}


def test_load_of_a_folder_of_an_earlier_release_says_nothing_and_save_writes_the_new_keys(
    tmp_path: Path, ours: Path
) -> None:
    path = ours / "fashion_retrieval.json"
    taxonomy = {"category": {"template": "a photo of {colour} {category}", "values": ["a", "b"]}}
    old = json.loads(path.read_text(encoding="utf-8")) | {"licence": "MIT", "taxonomy": taxonomy}
    del old["license"]
    path.write_text(json.dumps(old), encoding="utf-8")
    config = checkpoint.save(checkpoint.load(ours), tmp_path / "new")
    assert config.license == "MIT"
    assert Taxonomy.load(config.taxonomy).category.templates == ("a photo of {color} {category}",)
    text = (tmp_path / "new" / "fashion_retrieval.json").read_text(encoding="utf-8")
    assert "licence" not in text
    assert "colour" not in text
