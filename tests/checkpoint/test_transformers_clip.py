from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from fashion_retrieval import checkpoint
from fashion_retrieval.checkpoint.transformers_clip import open_clip_config, open_clip_weights
from fashion_retrieval.errors import ConfigError, ModelNotFoundError, UnsupportedError, WeightsError
from tests.support.tiny import drawn_photo

TEXTS = ["a photo of a red dress", "jeans", "a long navy coat with a very large number of shiny golden buttons"]


def clip_config(hidden_act: str = "quick_gelu", **text: Any) -> dict[str, Any]:
    tower = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "hidden_act": hidden_act,
    }
    return {
        "model_type": "clip",
        "projection_dim": 16,
        "text_config": tower | text,
        "vision_config": tower | {"image_size": 32, "patch_size": 8},
    }


def clip_folder(folder: Path, config: dict[str, Any]) -> Any:
    """Save a random transformers CLIPModel of this config and return it."""
    from transformers import CLIPConfig, CLIPModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = CLIPModel(CLIPConfig(**json.loads(json.dumps(config)))).eval()
        for parameter in model.parameters():  # the usual initialization leaves biases at 0 and activations linear
            parameter.data.add_(torch.randn(parameter.shape) * 0.1)
    model.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return model


@pytest.mark.parametrize("hidden_act", ["quick_gelu", "gelu"])
def test_embeddings_equal_those_of_transformers(tmp_path: Path, hidden_act: str) -> None:
    model = clip_folder(tmp_path, clip_config(hidden_act))
    bundle = checkpoint.load(tmp_path)
    encoder = bundle.encoder
    pixels = torch.stack([encoder.preprocess(drawn_photo(seed=seed)) for seed in range(3)])
    with torch.inference_mode():
        expected = model(input_ids=encoder.tokenizer(TEXTS), pixel_values=pixels)
        images, texts = encoder.encode_image(pixels), encoder.encode_text(encoder.tokenize(TEXTS))
    assert bundle.config is None
    assert images.shape == texts.shape == (3, 16)
    torch.testing.assert_close(images, expected.image_embeds, atol=1e-5, rtol=0)
    torch.testing.assert_close(texts, expected.text_embeds, atol=1e-5, rtol=0)
    assert encoder.logit_scale == pytest.approx(model.logit_scale.exp().item())


def test_sentence_transformers_layout_is_its_clip(tmp_path: Path) -> None:
    clip_folder(tmp_path / "0_CLIPModel", clip_config())
    (tmp_path / "modules.json").write_text("[]", encoding="utf-8")
    whole, inner = checkpoint.load(tmp_path).encoder, checkpoint.load(tmp_path / "0_CLIPModel").encoder
    assert whole.fingerprint == inner.fingerprint


def test_two_encoders_with_projections_are_one_model(tmp_path: Path) -> None:
    from transformers import CLIPTextModelWithProjection, CLIPVisionModelWithProjection

    model = clip_folder(tmp_path / "whole", clip_config())
    models = {}
    for name, kind in {"text": CLIPTextModelWithProjection, "vision": CLIPVisionModelWithProjection}.items():
        part = kind(kind.config_class(**clip_config()[f"{name}_config"], projection_dim=16)).eval()
        part.load_state_dict({key: value for key, value in model.state_dict().items() if key in part.state_dict()})
        part.save_pretrained(tmp_path / {"text": "text_encoder", "vision": "image_encoder"}[name])
        models[name] = part
    encoder = checkpoint.load(tmp_path).encoder
    pixels = torch.stack([encoder.preprocess(drawn_photo(seed=seed)) for seed in range(3)])
    with torch.inference_mode():
        images, texts = encoder.encode_image(pixels), encoder.encode_text(encoder.tokenize(TEXTS))
        theirs = models["vision"](pixel_values=pixels).image_embeds
        expected = model(input_ids=encoder.tokenizer(TEXTS), pixel_values=pixels)
    torch.testing.assert_close(images, torch.nn.functional.normalize(theirs, dim=-1), atol=1e-5, rtol=0)
    torch.testing.assert_close(images, expected.image_embeds, atol=1e-5, rtol=0)
    torch.testing.assert_close(texts, expected.text_embeds, atol=1e-5, rtol=0)
    assert encoder.logit_scale == pytest.approx(1 / 0.07)
    (tmp_path / "image_encoder" / "model.safetensors").unlink()
    with pytest.raises(ModelNotFoundError, match="found no model"):
        checkpoint.load(tmp_path)


def test_converted_activations_differ(tmp_path: Path) -> None:
    clip_folder(tmp_path, clip_config("quick_gelu"))
    quick = checkpoint.load(tmp_path).encoder
    (tmp_path / "config.json").write_text(json.dumps(clip_config("gelu")), encoding="utf-8")
    exact = checkpoint.load(tmp_path).encoder
    with torch.inference_mode():
        difference = quick.encode_text(quick.tokenize(TEXTS)) - exact.encode_text(exact.tokenize(TEXTS))
    assert difference.abs().max() > 1e-4


def test_layer_norm_eps_is_kept(tmp_path: Path) -> None:
    model = clip_folder(tmp_path, clip_config(layer_norm_eps=0.1))
    encoder = checkpoint.load(tmp_path).encoder
    with torch.inference_mode():
        pixels = torch.zeros(1, 3, 32, 32)
        expected = model(input_ids=encoder.tokenizer(TEXTS[:1]), pixel_values=pixels).text_embeds
        texts = encoder.encode_text(encoder.tokenize(TEXTS[:1]))
    torch.testing.assert_close(texts, expected, atol=1e-5, rtol=0)


def test_a_converted_model_is_saved_in_our_format(tmp_path: Path) -> None:
    clip_folder(tmp_path / "source", clip_config())
    bundle = checkpoint.load(tmp_path / "source")
    checkpoint.save(bundle, tmp_path / "saved")
    again = checkpoint.load(tmp_path / "saved")
    tokens = bundle.encoder.tokenize(TEXTS)
    with torch.inference_mode():
        assert torch.equal(again.encoder.encode_text(tokens), bundle.encoder.encode_text(tokens))
    assert again.encoder.config["model_cfg"]["quick_gelu"] is True


def test_older_files_position_ids_are_passed_over_and_strangers_are_not(tmp_path: Path) -> None:
    clip_folder(tmp_path, clip_config())
    state = load_file(tmp_path / "model.safetensors")
    state["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    save_file(state, tmp_path / "model.safetensors")
    checkpoint.load(tmp_path)
    state["text_model.adapter.weight"] = torch.zeros(1)
    del state["text_model.encoder.layers.0.self_attn.k_proj.weight"]
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=r"unexpected: text_model\.adapter\.weight.*another shape.*in_proj_weight"):
        checkpoint.load(tmp_path)


def test_defaults_are_those_of_vit_b_32() -> None:
    config = open_clip_config({"model_type": "clip"}, None, "folder")
    assert config["model_cfg"] == {
        "embed_dim": 512,
        "quick_gelu": True,
        "vision_cfg": {
            "image_size": 224,
            "patch_size": 32,
            "width": 768,
            "layers": 12,
            "head_width": 64,
            "mlp_ratio": 4.0,
        },
        "text_cfg": {
            "context_length": 77,
            "vocab_size": 49408,
            "width": 512,
            "layers": 12,
            "heads": 8,
            "mlp_ratio": 4.0,
        },
    }
    assert config["preprocess_cfg"] == {"size": 224, "interpolation": "bicubic", "resize_mode": "shortest"}


def test_older_config_dicts_stand_above() -> None:
    config = {
        "model_type": "clip",
        "text_config": {"hidden_size": 99, "num_hidden_layers": 3},
        "text_config_dict": {"hidden_size": 1024, "num_attention_heads": 16},
        "vision_config_dict": None,
    }
    text = open_clip_config(config, None, "folder")["model_cfg"]["text_cfg"]
    assert (text["width"], text["heads"], text["layers"]) == (1024, 16, 12)


@pytest.mark.parametrize(("width", "inner"), [(1664, 8192), (768, 3072), (49, 11), (1408, 6144)])
def test_mlp_width_survives_open_clips_rounding(width: int, inner: int) -> None:
    sizes = {"hidden_size": width, "intermediate_size": inner, "num_attention_heads": 1}
    config = open_clip_config({"model_type": "clip", "vision_config": sizes}, None, "folder")
    assert int(width * config["model_cfg"]["vision_cfg"]["mlp_ratio"]) == inner


@pytest.mark.parametrize(
    ("preprocessor", "expected"),
    [
        (
            {"size": 224, "crop_size": 224, "resample": 3, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]},
            {"resize_mode": "shortest", "interpolation": "bicubic", "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]},
        ),
        (
            {"size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}, "resample": 2},
            {"resize_mode": "shortest", "interpolation": "bilinear"},
        ),
        (
            {"size": {"height": 224, "width": 224}, "do_center_crop": False, "crop_size": None},
            {"resize_mode": "squash", "interpolation": "bicubic"},
        ),
    ],
)
def test_converted_preprocessing_is_that_of_the_model(preprocessor: dict[str, Any], expected: dict[str, Any]) -> None:
    config = open_clip_config({"model_type": "clip"}, preprocessor, "folder")
    assert config["preprocess_cfg"] == expected | {"size": 224}


@pytest.mark.parametrize("name", ["preprocessor_config.json", "processor_config.json"])
def test_preprocessing_is_read_from_the_folder(tmp_path: Path, name: str) -> None:
    clip_folder(tmp_path, clip_config())
    settings: dict[str, Any] = {"size": {"shortest_edge": 32}, "crop_size": 32, "image_mean": [0.25, 0.5, 0.75]}
    content = settings if name == "preprocessor_config.json" else {"image_processor": settings}
    (tmp_path / name).write_text(json.dumps(content), encoding="utf-8")
    preprocess = checkpoint.load(tmp_path).encoder.preprocess_config
    assert tuple(preprocess.mean) == (0.25, 0.5, 0.75)
    assert preprocess.size == (32, 32)


@pytest.mark.parametrize(
    "preprocessor",
    [
        {"size": {"shortest_edge": 256}, "crop_size": 224},
        {"size": 336, "crop_size": 336},
        {"size": {"height": 224, "width": 200}},
        {"resample": 0},
        {"resample": [3]},
        {"do_normalize": False},
    ],
)
def test_other_preprocessing_is_refused(preprocessor: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedError, match="the preprocessing must be a bicubic or bilinear resize"):
        open_clip_config({"model_type": "clip"}, preprocessor, "folder")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "blip"}, "a model of type 'clip', 'metaclip_2', 'siglip', 'siglip2', got 'blip'"),
        ({}, "a model of type 'clip', 'metaclip_2', 'siglip', 'siglip2', got None"),
        ({"model_type": "clip", "text_config": {"hidden_act": "relu"}}, "in both towers, got quick_gelu, relu"),
        ({"model_type": "clip", "vision_config": {"hidden_act": "gelu"}}, "in both towers, got gelu, quick_gelu"),
    ],
)
def test_other_models_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedError, match=re.escape(message)):
        open_clip_config(config, None, "folder")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"text_config": []}, "'text_config' must be an object, got list"),
        (
            {"text_config": {"hidden_size": "512"}},
            "'text_config.hidden_size' must be a whole number above 0, got '512'",
        ),
        ({"vision_config": {"patch_size": 0}}, "'vision_config.patch_size' must be a whole number above 0, got 0"),
        ({"vision_config": {"hidden_size": 100}}, "'vision_config.hidden_size' must be a multiple"),
        ({"text_config": {"layer_norm_eps": None}}, "'text_config.layer_norm_eps' must be a number"),
        ({"projection_dim": None}, "'projection_dim' must be a whole number above 0, got None"),
    ],
)
def test_faulty_configs_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        open_clip_config({"model_type": "clip"} | config, None, "folder")


def test_projections_are_transposed() -> None:
    weights = open_clip_weights({"text_projection.weight": torch.arange(6.0).reshape(2, 3)})
    assert weights["text_projection"].tolist() == [[0, 3], [1, 4], [2, 5]]
