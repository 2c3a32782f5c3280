"""open_clip's architectures, one a family: what this package loads gives open_clip's own embeddings."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from huggingface_hub import save_torch_state_dict
from open_clip.factory import get_model_config
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from fashion_retrieval import checkpoint
from fashion_retrieval._utils.files import asset
from fashion_retrieval.errors import ConfigError, MissingExtraError, UnsupportedError, WeightsError
from fashion_retrieval.models.open_clip_spelling import text_tower_folder
from tests.support.open_clip_families import TEXTS, family_folder, shrink_trunks, small
from tests.support.tiny import drawn_photo

WEIGHTS = "open_clip_model.safetensors"
PHOTOS = [drawn_photo((90, 70), seed=seed) for seed in range(3)]
FAMILIES = [
    "ViT-B-32",
    "ViT-B-32-quickgelu",
    "ViT-M-16-alt",
    "ViT-L-14-CLIPA",
    "ViT-L-14-worldwide",
    "RN50",
    "RN50-quickgelu",
    "convnext_tiny",
    "EVA01-g-14",
    "EVA02-B-16",
    "ViT-B-16-SigLIP",
    "ViT-B-16-SigLIP2",
    "ViT-SO400M-16-SigLIP-i18n-256",
    "MobileCLIP-B",
    "MobileCLIP-S1",
    "MobileCLIP2-S0",
    "MobileCLIP2-S3",
    "ViTamin-S",
    "PE-Core-T-16-384",
    "swin_base_patch4_window7_224",
    "vit_medium_patch16_gap_256",
    "vit_relpos_medium_patch16_cls_224",
    "coca_ViT-B-32",
    "coca_base",
    "coca_roberta-ViT-B-32",
    "roberta-ViT-B-32",
    "xlm-roberta-base-ViT-B-32",
    "mt5-base-ViT-B-32",
    "nllb-clip-base",
    "nllb-clip-base-siglip",
]


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink_trunks(monkeypatch)


def theirs(folder: Path) -> tuple[Tensor, Tensor]:
    """Embeddings of PHOTOS and TEXTS as open_clip loads and computes them, normalized."""
    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(TEXTS)
    pixels = torch.stack([preprocess(photo) for photo in PHOTOS])
    with torch.inference_mode():
        images, texts = model.eval().encode_image(pixels), model.encode_text(tokens)
    return functional.normalize(images, dim=-1), functional.normalize(texts, dim=-1)


def ours(folder: Path) -> tuple[Tensor, Tensor]:
    encoder = checkpoint.load(folder).encoder.for_inference(torch.device("cpu"), torch.float32)
    with torch.inference_mode():
        images = encoder.encode_image(torch.stack([encoder.pixels(photo) for photo in PHOTOS]))
        return images, encoder.encode_text(encoder.tokenize(TEXTS))


def cosines(folder: Path) -> list[float]:
    """Cosine between this package's embedding and open_clip's, of each photo and text."""
    pairs = zip(ours(folder), theirs(folder), strict=True)
    return [cosine for mine, other in pairs for cosine in functional.cosine_similarity(mine, other).tolist()]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_of_open_clip_gives_open_clips_embeddings(tmp_path: Path, name: str) -> None:
    family_folder(tmp_path, small(name))
    images, texts = theirs(tmp_path)
    assert all((group @ group.T).fill_diagonal_(0).max() < 0.999 for group in (images, texts))
    assert min(cosines(tmp_path)) >= 0.99999


def test_a_text_tower_of_known_sizes_needs_no_config_of_its_own(tmp_path: Path) -> None:
    known = json.loads(asset("transformers/text_towers.json"))
    named = {get_model_config(name)["text_cfg"].get("hf_model_name") for name in open_clip.list_models()}
    assert known.keys() == named - {None}
    with text_tower_folder("roberta-base", tmp_path) as folder:
        config = json.loads(Path(folder, "config.json").read_text(encoding="utf-8"))
    assert (config["model_type"], config["vocab_size"], config["max_position_embeddings"]) == ("roberta", 50265, 514)
    assert not Path(folder).exists()


@pytest.mark.parametrize("name", ["coca_ViT-B-32", "nllb-clip-base"])
def test_what_is_saved_again_is_a_dual_encoder_of_open_clip(tmp_path: Path, name: str) -> None:
    family_folder(tmp_path / "source", small(name))
    bundle = checkpoint.load(tmp_path / "source")
    checkpoint.save(replace(bundle, config=None), tmp_path / "saved")
    assert checkpoint.load(tmp_path / "saved").encoder.fingerprint == bundle.encoder.fingerprint
    assert min(cosines(tmp_path / "saved")) >= 0.99999
    assert not any("decoder." in name for name in load_file(tmp_path / "saved" / WEIGHTS))


# What open_clip forgives


def rewritten(change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Callable[[Path], None]:
    def rewrite(folder: Path) -> None:
        state = {name: tensor.clone() for name, tensor in load_file(folder / WEIGHTS).items()}
        save_file(change(state), folder / WEIGHTS)

    return rewrite


def reconfigured(tower: str, **settings: Any) -> Callable[[Path], None]:
    def rewrite(folder: Path) -> None:
        config = json.loads((folder / "open_clip_config.json").read_text(encoding="utf-8"))
        (config["model_cfg"][tower] if tower else config["model_cfg"]).update(settings)
        (folder / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")

    return rewrite


@pytest.mark.parametrize(
    "change",
    [
        rewritten(lambda state: {f"module.{name}": tensor for name, tensor in state.items()}),
        rewritten(lambda state: state | {"logit_scale": state["logit_scale"].reshape(1)}),
        rewritten(lambda state: {name: tensor.half() for name, tensor in state.items()}),
        rewritten(lambda state: {name: tensor.bfloat16() for name, tensor in state.items()}),
        lambda folder: (folder / WEIGHTS).rename(folder / "open_clip_pytorch_model.safetensors"),
        reconfigured("vision_cfg", image_size=160),
        reconfigured("text_cfg", context_length=90),
        reconfigured("text_cfg", hf_model_name=None),
        reconfigured("", custom_text=True),
        reconfigured("", nonscalar_logit_scale=True, init_logit_bias=-10),
    ],
    ids=["prefix", "list", "half", "bfloat16", "name", "larger", "longer", "unnamed", "custom", "bias"],
)
def test_what_open_clip_forgives_is_forgiven(tmp_path: Path, change: Callable[[Path], None]) -> None:
    family_folder(tmp_path, small("ViT-B-32"))
    change(tmp_path)
    assert min(cosines(tmp_path)) >= 0.99999


def shard(folder: Path, *, name: str = "open_clip_model") -> list[Path]:
    """Split the weights as huggingface_hub does and return the parts."""
    state = load_file(folder / WEIGHTS)
    save_torch_state_dict(state, folder, filename_pattern=name + "{suffix}.safetensors", max_shard_size="3MB")
    (folder / WEIGHTS).unlink(missing_ok=True)
    return sorted(folder.glob("*-of-*.safetensors"))


@pytest.mark.parametrize("name", ["open_clip_model", "open_clip_pytorch_model"])
def test_shards_are_read_as_one_file(tmp_path: Path, name: str) -> None:
    family_folder(tmp_path, small("ViT-B-32"))
    whole = ours(tmp_path)
    parts = shard(tmp_path, name=name)
    assert len(parts) == 2
    assert all(map(torch.equal, ours(tmp_path), whole))
    parts[1].unlink()
    with pytest.raises(WeightsError, match="is in 00002 parts, 1 of which are here; download them again"):
        checkpoint.load(tmp_path)


def test_settings_of_open_clip_2_mean_the_same(tmp_path: Path) -> None:
    family_folder(tmp_path, small("roberta-ViT-B-32"))
    now = ours(tmp_path)
    config = json.loads((tmp_path / "open_clip_config.json").read_text(encoding="utf-8"))
    model = config["model_cfg"]
    del model["text_cfg"]["hf_pooler_type"]
    model["text_cfg"] |= {"proj": "mlp", "pooler_type": "mean_pooler"}
    model["vision_cfg"] |= {"n_queries": 256, "input_patchnorm": False, "global_average_pool": False}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
    assert all(map(torch.equal, ours(tmp_path), now))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (reconfigured("vision_cfg", global_average_pool=True), UnsupportedError, "'global_average_pool', which only"),
        (reconfigured("text_cfg", hf_model_name="a/tower"), UnsupportedError, "put the config.json of a/tower into"),
        (reconfigured("vision_cfg", width=48, head_width=24), WeightsError, "is a file for another architecture"),
        (reconfigured("text_cfg", width=48), WeightsError, "is a file for another architecture"),
        (reconfigured("text_cfg", colour=1), ConfigError, "must describe a model that open_clip"),
        (
            rewritten(lambda state: state | {"text_decoder.x": torch.zeros(1)}),
            WeightsError,
            "unexpected: text_decoder.x",
        ),
        (
            rewritten(lambda state: state | {"visual.positional_embedding": torch.zeros(9, 32)}),
            WeightsError,
            "visual.positional_embedding (9, 32) instead of (10, 32)",
        ),
        (
            lambda folder: (folder / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0"),
            WeightsError,
            "is only a pointer of Git LFS; run: git lfs install && git lfs pull",
        ),
    ],
)
def test_what_can_not_be_loaded_says_why(
    tmp_path: Path, change: Callable[[Path], None], error: type[Exception], message: str
) -> None:
    family_folder(tmp_path, small("ViT-B-32"))
    change(tmp_path)
    with pytest.raises(error, match=re.escape(message)):
        checkpoint.load(tmp_path)


def test_a_text_tower_without_transformers_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    family_folder(tmp_path, small("roberta-ViT-B-32"))
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"needs transformers; run: pip install 'fashion-retrieval\[hf\]'"):
        checkpoint.load(tmp_path)
