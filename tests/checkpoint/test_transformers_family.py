"""SigLIP, SigLIP 2, MetaCLIP 2 and CLIPs of other vocabularies, small: features equal transformers' own."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from fashion_retrieval import checkpoint
from fashion_retrieval.checkpoint import transformers_clip
from fashion_retrieval.errors import ConfigError, MissingExtraError, UnsupportedError, WeightsError
from tests.support import open_clip_families
from tests.support.open_clip_families import TEXTS, rough, shrink_trunks, small_tokenizer
from tests.support.tiny import drawn_photo

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
WORDS = {"vocab_size": 64, "max_position_embeddings": 16}
PHOTOS = [drawn_photo((90, 70), seed=seed) for seed in range(3)]


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"embed_dim": 32, "depth": 2, "num_heads": 2, "mlp_ratio": 1.5}
    for name in ("vit_base_patch32_siglip_256", "vit_base_patch16_siglip_224", "vit_base_patch16_siglip_256"):
        monkeypatch.setitem(open_clip_families.SMALL_TRUNKS, name, sizes)
    shrink_trunks(monkeypatch)
    monkeypatch.setitem(transformers_clip._LAYOUTS["siglip"]["trunks"], "base", [32, 48, 2, 2])


def written(folder: Path, config: Any) -> nn.Module:
    """Save a random model of a transformers config with its tokenizer and photos' processor, and return it."""
    model = rough(partial(transformers.AutoModel.from_config, config))
    model.save_pretrained(folder)
    tokenizer = small_tokenizer()
    tokenizer.model_max_length = WORDS["max_position_embeddings"]
    tokenizer.model_input_names = ["input_ids"]
    tokenizer.save_pretrained(folder)
    return model


def siglip(**vision: Any) -> transformers.SiglipConfig:
    tower = SIZES | {"image_size": 224, "patch_size": 16} | vision
    return transformers.SiglipConfig(text_config=SIZES | WORDS | {"projection_size": 32}, vision_config=tower)


def clip(kind: Callable[..., Any] = transformers.CLIPConfig, **text: Any) -> Any:
    vision = SIZES | {"image_size": 32, "patch_size": 8}
    return kind(text_config=SIZES | WORDS | text, vision_config=vision, projection_dim=16)


def tokens(folder: Path) -> Tensor:
    """Ids of TEXTS as transformers' own tokenizer gives them."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ids: Tensor = tokenizer(TEXTS, padding="max_length", truncation=True, max_length=16, return_tensors="pt").input_ids
    return ids


def assert_features(folder: Path, model: Any, pixels: Tensor, *, ids: Tensor | None = None, **vision: Any) -> None:
    """Hold what the folder gives against transformers' features of photos of its own processor."""
    encoder = checkpoint.load(folder).encoder.for_inference(torch.device("cpu"), torch.float32)
    ids = tokens(folder) if ids is None else ids
    assert torch.equal(encoder.tokenizer(TEXTS), ids)
    with torch.inference_mode():
        images = model.get_image_features(pixel_values=pixels, **vision).pooler_output
        texts = model.get_text_features(input_ids=ids).pooler_output
        mine = encoder.encode_image(torch.stack([encoder.pixels(photo) for photo in PHOTOS]))
        found = encoder.encode_text(encoder.tokenize(TEXTS))
    assert (functional.normalize(images, dim=-1) @ functional.normalize(images, dim=-1).T)[0, 1] < 0.999
    torch.testing.assert_close(mine, functional.normalize(images, dim=-1), atol=1e-5, rtol=0)
    torch.testing.assert_close(found, functional.normalize(texts, dim=-1), atol=1e-5, rtol=0)
    assert encoder.logit_scale == pytest.approx(model.logit_scale.exp().item())


def siglip_pixels(folder: Path, **settings: Any) -> Tensor:
    """PHOTOS as SigLIP's processor gives them, whose settings are written into the folder."""
    processor = SiglipImageProcessorPil(**settings)
    processor.save_pretrained(folder)
    pixels: Tensor = processor(PHOTOS, return_tensors="pt").pixel_values
    return pixels


@pytest.mark.parametrize(
    ("vision", "settings"),
    [
        ({}, {}),
        ({}, {"resample": 2}),
        ({"image_size": 256, "patch_size": 32}, {"size": {"height": 256, "width": 256}, "image_mean": [0.1, 0.2, 0.3]}),
    ],
)
def test_siglip_gives_transformers_features(tmp_path: Path, vision: dict[str, Any], settings: dict[str, Any]) -> None:
    model = written(tmp_path, siglip(**vision))
    assert_features(tmp_path, model, siglip_pixels(tmp_path, **settings))


def test_siglip_without_settings_for_photos_has_the_usual_ones(tmp_path: Path) -> None:
    model = written(tmp_path, siglip())
    assert_features(tmp_path, model, SiglipImageProcessorPil()(PHOTOS, return_tensors="pt").pixel_values)


@pytest.mark.filterwarnings("ignore:the tokenizer in")  # release 5 of transformers reads the drawn one otherwise
def test_siglip_2_gives_transformers_features_of_square_photos(tmp_path: Path) -> None:
    vision = SIZES | {"patch_size": 16, "num_patches": 256}
    model = written(
        tmp_path,
        transformers.Siglip2Config(text_config=SIZES | WORDS | {"projection_size": 32}, vision_config=vision),
    )
    square = SiglipImageProcessorPil(size={"height": 256, "width": 256}, resample=2)(PHOTOS, return_tensors="pt")
    patches = square.pixel_values.unfold(2, 16, 16).unfold(3, 16, 16).permute(0, 2, 3, 4, 5, 1).reshape(3, 256, -1)
    told = {"pixel_attention_mask": torch.ones(3, 256), "spatial_shapes": torch.full((3, 2), 16)}
    assert_features(tmp_path, model, patches, **told)


def clip_pixels(folder: Path) -> Tensor:
    processor = transformers.models.clip.image_processing_pil_clip.CLIPImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    processor.save_pretrained(folder)
    pixels: Tensor = processor(PHOTOS, return_tensors="pt").pixel_values
    return pixels


@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
def test_metaclip_2_gives_transformers_features(tmp_path: Path, activation: str) -> None:
    config = clip(transformers.MetaClip2Config, eos_token_id=2, pad_token_id=1, hidden_act=activation)
    config.vision_config.hidden_act = activation
    assert_features(tmp_path, written(tmp_path, config), clip_pixels(tmp_path))


@pytest.mark.parametrize("end", [2, 3, 9])
def test_clip_of_another_vocabulary_ends_texts_as_its_config_means(tmp_path: Path, end: int) -> None:
    """2 is taken for the highest id, another one for itself, and where a text has none its first token counts."""
    assert_features(tmp_path, written(tmp_path, clip(eos_token_id=end, pad_token_id=1)), clip_pixels(tmp_path))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_siglip_in_half_precision_and_in_shards(tmp_path: Path, dtype: torch.dtype) -> None:
    model = written(tmp_path, siglip()).to(dtype)
    (tmp_path / "model.safetensors").unlink()
    model.save_pretrained(tmp_path, max_shard_size="40KB")
    assert len(list(tmp_path.glob("model-*-of-*.safetensors"))) > 1
    assert_features(tmp_path, model.float(), siglip_pixels(tmp_path))


def test_extra_buffers_are_passed_over(tmp_path: Path) -> None:
    model = written(tmp_path, siglip())
    state = load_file(tmp_path / "model.safetensors")
    for tower, length in (("text", 16), ("vision", 196)):
        state[f"{tower}_model.embeddings.position_ids"] = torch.arange(length)[None]
    save_file(state, tmp_path / "model.safetensors")
    assert_features(tmp_path, model, siglip_pixels(tmp_path))


def test_a_converted_siglip_is_saved_with_its_tokenizer_and_its_activation(tmp_path: Path) -> None:
    written(tmp_path / "source", siglip())
    bundle = checkpoint.load(tmp_path / "source")
    checkpoint.save(bundle, tmp_path / "saved")
    again = checkpoint.load(tmp_path / "saved").encoder
    assert again.fingerprint == bundle.encoder.fingerprint
    assert torch.equal(again.tokenize(TEXTS), bundle.encoder.tokenize(TEXTS))
    pixels = torch.stack([again.pixels(photo) for photo in PHOTOS])
    with torch.inference_mode():
        images = again.encode_image(pixels)
        assert torch.equal(images, bundle.encoder.encode_image(pixels))
        plain = open_clip.create_model(f"local-dir:{tmp_path / 'saved'}").eval()
        ids = open_clip.get_tokenizer(f"local-dir:{tmp_path / 'saved'}")(TEXTS)
        torch.testing.assert_close(plain.encode_text(ids, normalize=True), again.encode_text(ids))
        assert 1e-5 < (plain.encode_image(pixels, normalize=True) - images).abs().max() < 1e-2  # the exact GELU


def test_siglip_reads_texts_in_lower_case(tmp_path: Path) -> None:
    written(tmp_path, siglip())
    tokenize = checkpoint.load(tmp_path).encoder.tokenize
    assert torch.equal(tokenize(["A Red DRESS"]), tokenize(["a red dress"]))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (siglip(hidden_size=64), "an image tower that timm"),
        (siglip(image_size=160), "at 160 pixels with patches of 16"),
        (siglip(vision_use_head=False), "an image tower that timm"),
        (siglip(layer_norm_eps=1e-5), "an image tower that timm"),
        (siglip(hidden_act="gelu"), "must use 'gelu_pytorch_tanh' in both towers, got gelu, gelu_pytorch_tanh"),
    ],
)
def test_other_siglips_are_refused(tmp_path: Path, config: Any, message: str) -> None:
    (tmp_path / "model.safetensors").touch()
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()), encoding="utf-8")
    with pytest.raises(UnsupportedError, match=re.escape(message)):
        checkpoint.load(tmp_path)


def test_a_siglip_without_its_tokenizer_says_so(tmp_path: Path) -> None:
    written(tmp_path, siglip())
    for path in tmp_path.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(ConfigError, match=r"the tokenizer in .* can't be read"):
        checkpoint.load(tmp_path)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("SiglipTokenizer", "spiece.model"),
        ("T5Tokenizer", "spiece.model"),
        ("GemmaTokenizer", "tokenizer.model"),
        ("XLMRobertaTokenizer", "sentencepiece.bpe.model"),
    ],
)
def test_a_tokenizer_that_needs_sentencepiece_names_it(
    tmp_path: Path, kind: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, siglip())
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / name).write_bytes(b"\n\x0e\n\x05<unk>\x15\x00\x00\x00\x00\x18\x02")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind}), encoding="utf-8")
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(
        MissingExtraError, match=r"needs sentencepiece .*; run: pip install sentencepiece proto"
    ) as caught:
        checkpoint.load(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["T5Tokenizer", "GemmaTokenizer", "XLMRobertaTokenizer"])
def test_a_tokenizer_without_its_vocabulary_is_refused(tmp_path: Path, kind: str) -> None:
    """transformers 5 makes a tokenizer that takes every word for unknown."""
    written(tmp_path, siglip())
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind}), encoding="utf-8")
    with pytest.raises(ConfigError, match="has no words, its vocabulary is missing; download the model again"):
        checkpoint.load(tmp_path)


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ("{}", ConfigError, "can't be read"),
        ("version https://git-lfs.github.com/spec/v1\n", WeightsError, "is only a pointer of Git LFS"),
    ],
)
def test_a_damaged_tokenizer_says_so_in_one_line(
    tmp_path: Path, content: str, error: type[Exception], message: str
) -> None:
    written(tmp_path, siglip())
    (tmp_path / "tokenizer.json").write_text(content, encoding="utf-8")
    with pytest.raises(error, match=message) as caught:
        checkpoint.load(tmp_path)
    assert "\n" not in str(caught.value)
