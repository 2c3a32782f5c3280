"""The embedded model's towers in torch alone: open_clip's and timm's names, shapes and numbers."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn

from fashion_retrieval.checkpoint import load
from fashion_retrieval.errors import ConfigError
from fashion_retrieval.hub.download import resolve
from fashion_retrieval.models.encoder import Encoder
from fashion_retrieval.models.light import EFFICIENTNET, LightCLIP, PyramidEfficientNetLite, is_light
from tests.support.tiny import altered, drawn_photo, tiny_folder

TEXTS = ["a photo of a red dress", "coat", "a long woolly coat, with buttons and a belt"]
PATH = Path(resolve("compact"))
MODEL: dict[str, Any] = json.loads((PATH / "open_clip_config.json").read_text(encoding="utf-8"))["model_cfg"]


@pytest.fixture(scope="module")
def light() -> Encoder:
    return load(PATH, light=True).encoder


@pytest.fixture(scope="module")
def plain() -> Encoder:
    return load(PATH).encoder


def seen(module: nn.Module) -> nn.Module:
    """In eval mode, with batch norms that change what they are given."""
    generator = torch.Generator().manual_seed(0)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and norm.running_var is not None:
            norm.running_mean.normal_(0, 0.2, generator=generator)
            norm.running_var.uniform_(0.5, 2, generator=generator)
    return module.eval()


def test_the_embedded_model_is_light(light: Encoder, plain: Encoder) -> None:
    assert isinstance(light.clip, LightCLIP)
    assert type(plain.clip).__module__ == "open_clip.model"


def test_weights_have_open_clips_names_and_shapes(light: Encoder, plain: Encoder) -> None:
    mine, theirs = light.clip.state_dict(), plain.clip.state_dict()
    assert {name: (value.shape, value.dtype) for name, value in mine.items()} == {
        name: (value.shape, value.dtype) for name, value in theirs.items()
    }
    assert all(torch.equal(value, theirs[name]) for name, value in mine.items())
    fresh = [encoder.stored_fingerprint(torch.float16) for encoder in (light, plain)]
    assert fresh[0] == fresh[1]
    assert light.stored_fingerprint(torch.float32) == plain.fingerprint == light.fingerprint


def test_embeddings_and_token_features_are_open_clips(light: Encoder, plain: Encoder) -> None:
    pixels = torch.stack([plain.preprocess(drawn_photo((90, 120), seed=seed)) for seed in range(3)])
    torch.testing.assert_close(light.preprocess(drawn_photo((90, 120))), pixels[0], rtol=0, atol=0)
    words = plain.tokenize(TEXTS)
    assert torch.equal(light.tokenize(TEXTS), words)
    with torch.inference_mode():
        wanted = plain.clip.encode_image(pixels, normalize=True)  # type: ignore[call-arg]  # open_clip's own
        torch.testing.assert_close(light.encode_image(pixels), wanted, rtol=0, atol=1e-6)
        wanted = plain.clip.encode_text(plain.tokenizer(TEXTS), normalize=True)  # type: ignore[call-arg]  # the same
        torch.testing.assert_close(light.encode_text(words), wanted, rtol=0, atol=1e-6)
        mine, theirs = light.image_tokens(pixels), plain.image_tokens(pixels)
        assert mine.shape == (3, 1 + 9 * 7, 384)
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)
        (mine, lengths), (theirs, same) = light.text_tokens(words), plain.text_tokens(words)
    assert lengths.tolist() == same.tolist()
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)
    assert light.logit_scale == plain.logit_scale


@pytest.mark.parametrize("size", [(64, 64), (96, 80), (63, 64), (65, 97), (33, 31)])
def test_the_pyramid_is_timms(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    theirs = seen(timm.create_model(EFFICIENTNET, features_only=True, out_indices=(1, 2, 3, 4)))
    mine = PyramidEfficientNetLite().eval()
    assert list(mine.state_dict()) == list(theirs.state_dict())
    mine.load_state_dict(theirs.state_dict())
    photo = torch.randn(2, 3, *size)
    with torch.inference_mode():
        found, wanted = mine(photo), theirs(photo)
    assert [maps.shape[1] for maps in found] == list(mine.widths)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def changed(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    model = copy.deepcopy(MODEL)
    change(model)
    return model


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model["vision_cfg"].update(timm_model_name="tf_efficientnet_lite1"),
        lambda model: model["vision_cfg"].update(timm_pool="token"),
        lambda model: model["vision_cfg"].update(timm_proj="mlp"),
        lambda model: model["vision_cfg"].update(timm_model_pretrained=True),
        lambda model: model["vision_cfg"].update(timm_drop=0.1),
        lambda model: model["vision_cfg"].pop("timm_proj_bias"),
        lambda model: model.update(vision_cfg={"image_size": 32, "patch_size": 8, "layers": 2, "width": 32}),
        lambda model: model["text_cfg"].update(hf_tokenizer_name="google/siglip"),
        lambda model: model["text_cfg"].update(no_causal_mask=True),
        lambda model: model["text_cfg"].update(pool_type="last"),
        lambda model: model["text_cfg"].update(heads=3),
        lambda model: model["text_cfg"].update(heads=0),
        lambda model: model["text_cfg"].update(layers="4"),
        lambda model: model["text_cfg"].pop("width"),
        lambda model: model.update(custom_text=False),
        lambda model: model.pop("custom_text"),
        lambda model: model.update(quick_gelu=True),
        lambda model: model.update(init_logit_bias=-10),
        lambda model: model.pop("embed_dim"),
        lambda model: model.clear(),
    ],
)
def test_any_other_configuration_is_open_clips(change: Callable[[dict[str, Any]], object]) -> None:
    assert is_light(MODEL)
    assert not is_light(changed(change))


def test_other_sizes_of_the_same_towers_are_light_too(tmp_path: Path) -> None:
    config = altered(vision_cfg=MODEL["vision_cfg"] | {"image_size": 64}, custom_text=True)
    for unused in ("patch_size", "layers", "width", "head_width"):
        del config["model_cfg"]["vision_cfg"][unused]
    config["model_cfg"]["vision_cfg"]["timm_proj_bias"] = False
    folder = tiny_folder(tmp_path / "model", config)
    mine, theirs = load(folder, light=True).encoder, load(folder).encoder
    assert isinstance(mine.clip, LightCLIP)
    assert mine.fingerprint == theirs.fingerprint
    pixels = torch.stack([theirs.preprocess(drawn_photo(seed=seed)) for seed in range(2)])
    with torch.inference_mode():
        torch.testing.assert_close(mine.encode_image(pixels), theirs.encode_image(pixels), rtol=0, atol=1e-6)
        words = theirs.tokenize(TEXTS)
        torch.testing.assert_close(mine.encode_text(words), theirs.encode_text(words), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("part", "fault", "told"),
    [
        ("vision_cfg", {"image_size": "big"}, "ValueError: "),
        ("vision_cfg", {"image_size": [64, 64, 3]}, "ValueError: "),
        ("vision_cfg", {"image_size": 0}, "ZeroDivisionError: "),
        ("vision_cfg", {"image_size": -5}, "RuntimeError: "),
        ("preprocess_cfg", {"mean": [0.5, 0.5]}, "ValueError: "),
        ("preprocess_cfg", [0.5], "AttributeError: "),
    ],
)
def test_a_configuration_with_a_fault_is_told_in_one_line(tmp_path: Path, part: str, fault: Any, told: str) -> None:
    path = tmp_path / "open_clip_config.json"
    config = json.loads((PATH / path.name).read_text(encoding="utf-8"))
    home = config["model_cfg"] if part in config["model_cfg"] else config
    home[part] = home[part] | fault if isinstance(fault, dict) else fault
    path.write_text(json.dumps(config), encoding="utf-8")
    shutil.copy(PATH / "open_clip_model.safetensors", tmp_path)
    with pytest.raises(
        ConfigError, match=f"^open_clip_config.json must describe a model that .*, got {told}"
    ) as caught:
        load(tmp_path, light=True)
    assert "\n" not in str(caught.value)
