"""Weights rounded so that bfloat16 holds them: exact there, and closer in what they compute than plain rounding."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from open_clip.timm_model import TimmModel
from torch import Tensor, nn

from fashion_retrieval import FashionModel, checkpoint
from fashion_retrieval.checkpoint.extras import Extras, Prompts
from fashion_retrieval.config import ProbeConfig
from fashion_retrieval.models.encoder import Encoder
from fashion_retrieval.models.probe import Probe
from tests.models.test_inference_copy import BF16, CNN, CPU, trained
from tests.support.drawn_pack import write_pack
from tests.support.exported import refused, run, trained_composer, write_recipe
from tests.support.tiny import tiny_folder
from training.export import rounding


def photos(seed: int) -> Tensor:
    """Smooth maps, as photos are: neighbors and channels are alike."""
    coarse = torch.randn(8, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(coarse, (64, 64), mode="bilinear")


def exact_in_bfloat16(value: Tensor) -> bool:
    return torch.equal(value, value.bfloat16().float())


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    made = checkpoint.load(tiny_folder(tmp_path_factory.mktemp("model"), CNN)).encoder
    trained(made)
    return made


@pytest.fixture(scope="module")
def result(encoder: Encoder) -> Encoder:
    return rounding.rounded_encoder(encoder, [photos(0), photos(1)])


def test_rounded_encoder_holds_bfloat16_weights_and_its_architecture(encoder: Encoder, result: Encoder) -> None:
    assert result.clip.state_dict().keys() == encoder.clip.state_dict().keys()
    assert result.fingerprint != encoder.fingerprint
    tower = result.clip.visual
    assert isinstance(tower, TimmModel)
    first = ("trunk.conv_stem", "trunk.bn1", "trunk.blocks.0.")
    parts = [part for name, part in tower.named_modules() if not name.startswith(first)]
    kernels = [part for part in parts if isinstance(part, nn.Conv2d | nn.Linear)]
    norms = [part for part in parts if isinstance(part, nn.BatchNorm2d)]
    assert (len(kernels), len(norms)) == (47, 46)
    for part in (*kernels, *norms):
        assert exact_in_bfloat16(part.weight)
        assert part.bias is None or exact_in_bfloat16(part.bias)
    assert not exact_in_bfloat16(next(encoder.clip.visual.parameters()))
    before, after = encoder.clip.state_dict(), result.clip.state_dict()
    for name, value in before.items():
        if not name.startswith("visual.") or name.startswith(tuple(f"visual.{part}" for part in first)):
            torch.testing.assert_close(after[name], value, rtol=0, atol=0)


def test_rounded_encoder_computes_with_the_same_weights_in_both_types(result: Encoder) -> None:
    exact, rough = (result.for_inference(CPU, dtype).clip.visual for dtype in (torch.float32, BF16))
    for one, other in zip(exact.parameters(), rough.parameters(), strict=True):
        torch.testing.assert_close(one, other.float(), rtol=1e-5, atol=1e-7)


def test_rounded_encoder_stays_nearer_than_plain_rounding(encoder: Encoder, result: Encoder) -> None:
    plain = copy.deepcopy(encoder)
    with torch.no_grad():
        for layer, bias in rounding._layers(plain.clip.visual):
            layer.weight.copy_(layer.weight.bfloat16())
            bias.copy_(bias.bfloat16())
        seen = photos(2)
        wanted, near, far = (one.encode_image(seen) for one in (encoder, result, plain))
    errors = [1 - (wanted * found).sum(1).mean().item() for found in (near, far)]
    assert errors[0] < 0.5 * errors[1]


def test_round_of_one_layer_by_hand() -> None:
    """Inputs that are all alike: what the first weight loses the second makes up for."""
    layer = nn.Linear(2, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1 + 2**-9 + 2**-12, 2**-4]]))
        layer.bias.zero_()
    seen = torch.tensor([[[1.0, 2.0, 2.0], [1.0, -2.0, -2.0]]])
    with torch.no_grad():
        rounding._round(layer, layer.bias, seen.mT @ seen / 2)
    lost = 2**-9 + 2**-12
    assert layer.weight[0, 0].item() == 1
    assert layer.weight[0, 1].item() == pytest.approx(2**-4 + lost, abs=2**-12)
    assert layer.bias.item() == 0


@pytest.mark.parametrize("groups", [1, 4])
def test_taps_are_what_the_kernels_meet(groups: int) -> None:
    layer = nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=groups, bias=False)
    maps = torch.randn(2, 4, 7, 7)
    taps = rounding._taps(layer, maps)
    assert taps.shape == (groups, 2 * 16, 36 // groups)
    products = taps @ layer.weight.view(groups, 8 // groups, -1).mT
    found = products.view(groups, 2, 16, 8 // groups).permute(1, 0, 3, 2).reshape(2, 8, 4, 4)
    torch.testing.assert_close(found, layer(maps), rtol=1e-4, atol=1e-5)


def test_bfloat16_command_rounds_a_model_folder(tmp_path: Path) -> None:
    (tmp_path / "pack").mkdir()
    pack = write_pack(tmp_path / "pack")
    tiny_folder(tmp_path / "encoder", CNN)
    source = checkpoint.load(tmp_path / "encoder").encoder
    source.clip.to(torch.float16).float()
    trained_composer(tmp_path / "trained", tmp_path / "encoder")
    settings: dict[str, Any] = {"weights_dtype": "float32", "composer": str(tmp_path / "trained")}
    config = write_recipe(tmp_path / "e.toml", **settings)
    assert run("model", config).exit_code == 0
    assert "`data`" in refused(run("bfloat16", config))
    bundle = checkpoint.load(tmp_path / "tiny")
    width = bundle.encoder.embedding_dim
    prompts = Prompts.of(["a dress"], np.ones((1, width), np.float32))
    probes = {"sleeve": Probe.start(["sleeves_out_of_view"], width)}
    extras = Extras(basis=np.eye(width, dtype=np.float32), prompts=prompts, probes=probes)
    assert bundle.config is not None
    about = ProbeConfig(values=("sleeves_out_of_view",), encoder=bundle.encoder.fingerprint)
    with_probe = replace(bundle, extras=extras, config=replace(bundle.config, probes={"sleeve": about}))
    checkpoint.save(with_probe, tmp_path / "tiny")
    before = FashionModel.from_pretrained(tmp_path / "tiny", device="cpu", dtype="float32")
    assert before._basis is not None
    done = run("bfloat16", write_recipe(tmp_path / "e.toml", **settings, data=str(pack)))
    assert done.exit_code == 0, done.output
    assert "photos 0.99" in done.stdout
    assert "photos 1.000000" not in done.stdout
    after = FashionModel.from_pretrained(tmp_path / "tiny", device="cpu", dtype="float32")
    assert after.fingerprint != before.fingerprint
    names = {path.name for path in (tmp_path / "tiny").iterdir()}
    assert not {"dimensions.safetensors", "probes.safetensors", "prompts.safetensors"} & names
    assert after._bundle.composer is not None
    assert after._bundle.composer.config.encoder == after.fingerprint
    kernel = after.encoder.clip.visual.trunk.conv_head.weight
    torch.testing.assert_close(kernel, kernel.bfloat16().float(), rtol=1e-5, atol=1e-7)


def test_folding_changes_no_output() -> None:
    tower = trained(timm.create_model("tf_efficientnet_lite0", num_classes=0))
    photo = photos(3)[:1]
    with torch.no_grad():
        before = tower(photo)
        list(rounding._layers(tower))
        torch.testing.assert_close(tower(photo), before, rtol=1e-3, atol=1e-3)
