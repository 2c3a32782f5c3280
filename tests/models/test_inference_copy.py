"""Copies for inference: the same answers, from folded, rearranged and rounded weights."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import timm
import torch
from torch import nn

from fashion_retrieval import checkpoint
from fashion_retrieval.models.encoder import Encoder
from fashion_retrieval.models.inference_copy import for_inference, is_convolutional, rounded
from fashion_retrieval.models.weights import NoRandomWeights
from tests.support.tiny import altered, drawn_photo, tiny_folder

CPU, BF16 = torch.device("cpu"), torch.bfloat16
CNN = altered(
    vision_cfg={"timm_model_name": "tf_efficientnet_lite0", "timm_pool": "avg", "timm_proj": "linear",
                "image_size": 64}, custom_text=True,
)  # fmt: skip


def trained(module: nn.Module) -> nn.Module:
    """In eval mode, batch norms as if they had seen data: a fold that forgets one of their parts shows."""
    generator = torch.Generator().manual_seed(0)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and norm.running_var is not None:
            norm.running_mean.normal_(0, 0.2, generator=generator)
            norm.running_var.uniform_(0.5, 2, generator=generator)
            nn.init.uniform_(norm.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(norm.bias, 0, 0.3, generator=generator)
    return module.eval()


@pytest.fixture(scope="module", params=["vit", "cnn"])
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    config: Any = {"vit": altered(), "cnn": CNN}[request.param]
    made = checkpoint.load(tiny_folder(tmp_path_factory.mktemp("model"), config)).encoder
    trained(made)
    return made


@pytest.fixture(scope="module")
def pixels(encoder: Encoder) -> torch.Tensor:
    return torch.stack([encoder.preprocess(drawn_photo(seed=seed)) for seed in range(10)])


@pytest.mark.parametrize(("dtype", "least"), [(torch.float32, 0.999999), (BF16, 0.999)])
def test_a_copy_gives_the_same_embeddings(
    encoder: Encoder, pixels: torch.Tensor, dtype: torch.dtype, least: float
) -> None:
    ready = encoder.for_inference(CPU, dtype)
    texts = encoder.tokenize(["a red dress", "a coat"])
    with torch.inference_mode():
        for name, given in (("encode_image", pixels), ("encode_text", texts)):
            plain, fast = getattr(encoder, name)(given), getattr(ready, name)(given)
            assert fast.dtype == torch.float32
            assert (plain * fast).sum(1).min() > least
        plain, fast = encoder.image_tokens(pixels), ready.image_tokens(pixels)
    assert fast.dtype == torch.float32
    assert torch.cosine_similarity(plain, fast, dim=-1).min() > least - (dtype == BF16) * 0.01
    assert ready.logit_scale == encoder.logit_scale
    assert ready.fingerprint == encoder.fingerprint
    assert ready.preprocessing.exact == (dtype == torch.float32)


def test_the_source_stays_as_it_is_and_shares_what_it_can(encoder: Encoder) -> None:
    before = copy.deepcopy(encoder.clip.state_dict())
    ready = encoder.for_inference(CPU, torch.float32)
    own = {value.data_ptr() for value in encoder.parameters()}
    matrices = [value for value in ready.parameters() if value.ndim == 2]
    assert len(matrices) > 10
    assert all(value.data_ptr() in own for value in matrices)
    encoder.for_inference(CPU, BF16)
    for name, value in encoder.clip.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    assert all(parameter.requires_grad for parameter in encoder.clip.parameters() if parameter.ndim == 2)
    assert not any(parameter.requires_grad for parameter in ready.parameters())


@pytest.mark.parametrize("features", [False, True])
def test_batch_norms_are_folded_away(features: bool) -> None:
    torch.manual_seed(0)
    options: dict[str, Any] = {"features_only": True} if features else {"num_classes": 0}
    plain = trained(timm.create_model("tf_efficientnet_lite0", **options))
    ready = for_inference(plain, CPU, torch.float32)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in ready.modules())
    assert sum(isinstance(part, nn.BatchNorm2d) for part in plain.modules()) == (48 if features else 49)
    photo = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(ready(photo), plain(photo), rtol=1e-3, atol=1e-3)


def test_a_norm_that_stands_elsewhere_is_kept() -> None:
    """Order of definition is not order of execution: only modules known to run in order are folded."""

    class Before(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = nn.Conv2d(3, 3, 3)
            self.norm = nn.BatchNorm2d(3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.convolution(self.norm(x))
            return result

    plain = trained(Before())
    ready = for_inference(plain, CPU, torch.float32)
    photo = torch.randn(1, 3, 8, 8)
    with torch.inference_mode():
        torch.testing.assert_close(ready(photo), plain(photo))
    assert isinstance(ready.norm, nn.BatchNorm2d)


def test_rounded_kernels_keep_their_sum() -> None:
    kernels = torch.randn(32, 2, 5, 5, generator=torch.Generator().manual_seed(0))
    result = rounded(kernels, BF16)
    assert result.dtype == BF16
    plain = (kernels.bfloat16().double().sum((2, 3)) - kernels.double().sum((2, 3))).abs()
    kept = (result.double().sum((2, 3)) - kernels.double().sum((2, 3))).abs()
    assert kept.max() < 1e-3 < plain.mean()
    assert (result.double() - kernels.double()).abs().max() < 2**-6
    pointwise = torch.randn(4, 8, 1, 1)
    torch.testing.assert_close(rounded(pointwise, BF16), pointwise.bfloat16(), rtol=0, atol=0)


def test_what_is_convolutional() -> None:
    assert is_convolutional(nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)))
    assert not is_convolutional(nn.Sequential(nn.Conv2d(3, 3, 1), nn.Linear(3, 3)))


def test_no_weights_are_drawn_where_a_file_follows() -> None:
    state = torch.get_rng_state()
    with NoRandomWeights():
        module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(4, 4), nn.Embedding(9, 4), nn.MultiheadAttention(4, 2))
        timm.create_model("tf_efficientnet_lite0", num_classes=0)
        assert torch.zeros(2).fill_(3).tolist() == [3, 3]
    assert torch.equal(state, torch.get_rng_state())
    assert [tuple(value.shape) for value in module[0].parameters()] == [(4, 3, 3, 3), (4,)]
    nn.Linear(4, 4)
    assert not torch.equal(state, torch.get_rng_state())


def test_stem_of_a_cnn_stays_float32(tmp_path_factory: pytest.TempPathFactory) -> None:
    made = checkpoint.load(tiny_folder(tmp_path_factory.mktemp("model"), CNN)).encoder
    trained(made)
    photos = torch.stack([made.preprocess(drawn_photo(seed=seed)) for seed in range(10)])
    ready = made.for_inference(CPU, BF16)
    tower: Any = ready.clip.visual
    assert {value.dtype for part in (tower.trunk.conv_stem, tower.trunk.blocks[0]) for value in part.parameters()} == {
        torch.float32
    }
    assert {value.dtype for value in tower.trunk.blocks[1].parameters()} == {BF16}
    with torch.inference_mode():
        assert (made.encode_image(photos) * ready.encode_image(photos)).sum(1).min() > 0.999
        plain: Any = made.clip.visual
        maps = tower.trunk.blocks[0](tower.trunk.bn1(tower.trunk.conv_stem(photos)))
        wanted = plain.trunk.blocks[0](plain.trunk.bn1(plain.trunk.conv_stem(photos)))
    assert maps.dtype == BF16
    torch.testing.assert_close(maps.float(), wanted, atol=1e-3, rtol=2**-8)
    elsewhere: Any = made.for_inference(torch.device("meta"), BF16).clip.visual
    assert elsewhere.trunk.conv_stem.weight.dtype == BF16
