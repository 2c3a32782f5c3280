"""Features of a frozen encoder: computed once, whole on disk, the same whatever else a run has seen."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from fashion_retrieval import checkpoint
from fashion_retrieval.models.encoder import Encoder
from tests.support.tiny import drawn_photo, tiny_folder
from training.data.features import TextTokens, image_features
from training.engine.distributed import DistributedEnv

ALONE = DistributedEnv(0, 1, torch.device("cpu"))


@pytest.fixture
def encoder(tmp_path: Path) -> Encoder:
    return checkpoint.load(tiny_folder(tmp_path / "encoder")).encoder.eval()


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for number, path in enumerate(paths):
        drawn_photo(seed=number).save(path)
    return paths


def test_photos_are_encoded_once(
    encoder: Encoder, photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    first = image_features(encoder, photos, cache, ALONE)
    assert (first.shape, first.dtype) == ((3, 17, 16), torch.float16)
    monkeypatch.setattr(encoder, "image_tokens", None)
    torch.testing.assert_close(image_features(encoder, photos, cache, ALONE), first)
    assert [path.suffix for path in cache.rglob("*.*")] == [".safetensors"]


def test_a_copy_is_not_encoded_again_and_a_changed_photo_is(
    encoder: Encoder, photos: list[Path], tmp_path: Path
) -> None:
    cache, elsewhere = tmp_path / "cache", tmp_path / "copy"
    first = image_features(encoder, photos, cache, ALONE)
    elsewhere.mkdir()
    copies = [Path(shutil.copyfile(photo, elsewhere / f"copy_of_{photo.name}")) for photo in photos]
    drawn_photo(seed=7).save(photos[0])
    again = image_features(encoder, [photos[0], copies[2], copies[0], copies[0]], cache, ALONE)
    torch.testing.assert_close(again[1:], first[[2, 0, 0]], atol=0, rtol=0)
    torch.testing.assert_close(again[:1], image_features(encoder, photos[:1], tmp_path / "other", ALONE))
    assert len(list(cache.rglob("*.safetensors"))) == 2


def test_a_cut_off_shard_is_made_again(encoder: Encoder, photos: list[Path], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = image_features(encoder, photos, cache, ALONE)
    (shard,) = cache.rglob("*.safetensors")
    shard.write_bytes(shard.read_bytes()[:100])
    torch.testing.assert_close(image_features(encoder, photos, cache, ALONE), first)


def test_texts_are_encoded_once_and_alone(encoder: Encoder) -> None:
    said = ["is red and long", "is red", "is red and long"]
    texts = TextTokens(encoder)
    words, lengths = texts(said)
    expected, counted = encoder.text_tokens(encoder.tokenize(said))
    assert lengths.tolist() == counted.tolist() == [6, 4, 6]
    torch.testing.assert_close(words[0], expected[0], atol=2e-3, rtol=2e-3)
    torch.testing.assert_close(words[1, :4], expected[1, :4], atol=2e-3, rtol=2e-3)
    assert not words[1, 4:].any()
    assert len(texts.known) == 2
    assert torch.equal(TextTokens(encoder)(["is red"])[0][0], words[1, :4])
    encoder.tokenizer = None  # type: ignore[assignment]
    assert torch.equal(texts(["is red"])[0][0], words[1, :4])
