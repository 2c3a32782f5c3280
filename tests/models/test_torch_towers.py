"""Towers in torch: arrays in and out, with the numbers of the encoder's modules."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fashion_retrieval import checkpoint
from fashion_retrieval.config import ComposerConfig
from fashion_retrieval.models.composer import Composer
from fashion_retrieval.models.encoder import Encoder
from fashion_retrieval.models.torch_towers import TorchComposer, TorchTowers
from fashion_retrieval.models.towers import Levels
from tests.support.tiny import altered, drawn_photo, tiny_folder

CPU = torch.device("cpu")
TEXTS = ["in red", "with long sleeves and a collar, please", "shorter"]
CNN = altered(
    vision_cfg={"timm_model_name": "tf_efficientnet_lite0", "timm_pool": "avg", "timm_proj": "linear",
                "image_size": 64}, custom_text=True,
)  # fmt: skip


@pytest.fixture(scope="module", params=["vit", "cnn"])
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    config: Any = {"vit": altered(), "cnn": CNN}[request.param]
    return checkpoint.load(tiny_folder(tmp_path_factory.mktemp("model"), config)).encoder


def photos(towers: TorchTowers, count: int = 3) -> list[Levels]:
    return [towers.preprocessing.resize(drawn_photo(seed=seed)) for seed in range(count)]


@pytest.mark.parametrize(("dtype", "off"), [(torch.float32, 4e-6), (torch.bfloat16, 0.03)])
def test_arrays_are_what_the_encoder_computes(encoder: Encoder, dtype: torch.dtype, off: float) -> None:
    towers = TorchTowers(encoder, CPU, dtype)
    levels = photos(towers, 10)  # more than go through a convolutional tower at a time
    pixels = torch.from_numpy(np.stack([towers.preprocessing.normalize(one) for one in levels]))
    with torch.inference_mode():
        words = encoder.tokenize(TEXTS)
        states, lengths = encoder.text_tokens(words)
        wanted = encoder.encode_image(pixels), encoder.image_tokens(pixels), encoder.encode_text(words), states
    text_states, counts = towers.text_tokens(TEXTS)
    found = towers.encode_images(levels), towers.image_tokens(levels), towers.encode_texts(TEXTS), text_states
    for mine, theirs in zip(found, wanted, strict=True):
        assert mine.dtype == np.float32
        assert np.abs(mine - theirs.numpy()).max() <= off * max(1, theirs.abs().max().item())
    assert (counts.dtype, counts.tolist()) == (np.int64, lengths.tolist())
    ends = text_states[np.arange(3), counts - 1]
    assert np.abs(ends / np.linalg.norm(ends, axis=1, keepdims=True) - found[2]).max() <= off


def test_what_towers_tell_of_themselves(encoder: Encoder) -> None:
    for dtype, name in ((torch.float32, "float32"), (torch.bfloat16, "bfloat16")):
        towers = TorchTowers(encoder, CPU, dtype)
        assert (towers.backend, towers.dtype, towers.ahead) == ("torch", name, 0)
        assert (towers.embedding_dim, towers.context_length) == (16, 77)
        assert towers.logit_scale == encoder.logit_scale == pytest.approx(1 / 0.07)
        assert towers.fingerprint == encoder.fingerprint
        assert towers.preprocessing.exact == (dtype == torch.float32)
    assert TorchTowers(encoder, torch.device("meta"), torch.float32).ahead == 2
    assert towers.count_tokens(TEXTS) == 4 + 10 + 3
    assert towers.count_tokens(["red"] * 5) == 15


def test_pixels_are_those_of_preprocessing(encoder: Encoder) -> None:
    towers = TorchTowers(encoder, CPU, torch.float32)
    levels = photos(towers)
    found = towers._pixels(levels)
    wanted = np.stack([towers.preprocessing.normalize(one) for one in levels])
    assert found.dtype == torch.float32
    assert found.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_array_equal(found.numpy(), wanted)


def test_arrays_that_may_not_be_written_to_are_taken(encoder: Encoder) -> None:
    towers = TorchTowers(encoder, CPU, torch.float32)
    levels = photos(towers)
    expected = towers.encode_images(levels)
    for one in levels:
        one.flags.writeable = False
    np.testing.assert_array_equal(towers.encode_images(levels), expected)


def test_a_composer_on_another_device_is_a_copy(encoder: Encoder) -> None:
    shape = ComposerConfig(
        embedding_dim=16, variant="agcn", width=8, depth=1, heads=2, hidden=16, encoder=encoder.fingerprint
    )
    network = Composer(shape).eval()
    away, here = TorchComposer(network, torch.device("meta")), TorchComposer(network, CPU)
    assert {parameter.device.type for parameter in away.composer.parameters()} == {"meta"}
    assert {parameter.device.type for parameter in here.composer.parameters()} == {"cpu"}


def test_a_composer_takes_and_gives_arrays(encoder: Encoder) -> None:
    shape = ComposerConfig(
        embedding_dim=16, variant="agcn", width=8, depth=2, heads=2, hidden=16, encoder=encoder.fingerprint
    )
    torch.manual_seed(0)
    network = Composer(shape).eval()
    towers, composer = TorchTowers(encoder, CPU, torch.float32), TorchComposer(network, CPU)
    given = towers.image_tokens(photos(towers)), *towers.text_tokens(TEXTS)
    with torch.inference_mode():
        tensors = [torch.from_numpy(array) for array in given]
        wanted, parts = network(*tensors), network.parts(*tensors)
    found = composer(*given)
    assert (found.shape, found.dtype) == ((3, 16), np.float32)
    np.testing.assert_array_equal(found, wanted.numpy())
    for mine, theirs in zip(composer.parts(*given), parts, strict=True):
        assert mine.dtype == np.float32
        np.testing.assert_array_equal(mine, theirs.numpy())
