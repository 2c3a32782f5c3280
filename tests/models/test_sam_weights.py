"""Where SAM's weights come from, at a tiny size: files, the official checkpoints, the Hub. Never code from a pickle."""

import hashlib
import io
import pickle
import re
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import errors as hub_errors
from safetensors.torch import load_file, save_file

from fashion_retrieval.errors import HubError, ModelNotFoundError, WeightsError
from fashion_retrieval.models import sam as sam_module
from fashion_retrieval.models.sam import SegmentAnythingSegmenter, load_sam
from tests.support.tiny_sam import BOXES, WIDTH, filled, garments_photo, tiny_sam


@pytest.fixture(autouse=True)
def tiny_is_an_architecture(monkeypatch):
    monkeypatch.setitem(sam_module._BUILDERS, WIDTH, tiny_sam)


@pytest.fixture(scope="module")
def sam():
    return filled(tiny_sam())


@pytest.fixture(scope="module")
def segmenter(sam):
    return SegmentAnythingSegmenter(sam, device="cpu")


@pytest.fixture
def weights_file(sam, tmp_path):
    path = tmp_path / "tiny.safetensors"
    save_file(sam.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def photo():
    return garments_photo()


def refuse(*args, **kwargs):
    raise AssertionError("the Hub was asked")


def throw(error, *args, **kwargs):
    raise error


# --- weights from files


def test_save_and_load_is_exact(weights_file, sam, segmenter, photo):
    loaded = SegmentAnythingSegmenter.from_pretrained(weights_file, device="cpu")
    tensors = loaded.sam.state_dict()
    assert tensors.keys() == sam.state_dict().keys()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in sam.state_dict().items())
    assert loaded.segment(photo, BOXES) == segmenter.segment(photo, BOXES)


def test_a_folder_holds_model_safetensors(weights_file, segmenter, photo):
    weights_file.rename(weights_file.with_name("model.safetensors"))
    loaded = SegmentAnythingSegmenter.from_pretrained(str(weights_file.parent), device="cpu")
    assert loaded.segment(photo, BOXES) == segmenter.segment(photo, BOXES)


def test_half_precision_files_load_as_float32(weights_file):
    save_file({name: tensor.half() for name, tensor in load_file(weights_file).items()}, weights_file)
    assert {tensor.dtype for tensor in load_sam(weights_file).state_dict().values()} == {torch.float32}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda w: w.pop("mask_decoder.iou_token.weight"),
            r"than that of a SAM \(missing: .*iou_token.weight\); use",
        ),
        (lambda w: w.update(extra=torch.zeros(1)), r"unexpected: extra\); use"),
        (
            lambda w: w.update({"prompt_encoder.no_mask_embed.weight": torch.zeros(1, 8)}),
            r"prompt_encoder.no_mask_embed.weight \(1, 8\) instead of \(1, 32\)",
        ),
        (lambda w: w.pop("image_encoder.patch_embed.proj.weight"), "ViT-H, got no image encoder"),
        (
            lambda w: w.update({"image_encoder.patch_embed.proj.weight": torch.zeros(384, 3, 16, 16)}),
            "expected SAM ViT-B, ViT-L or ViT-H, got an image encoder 384 wide; use facebook/sam-vit-base",
        ),
        (
            lambda w: w.update({"image_encoder.patch_embed.proj.weight": torch.zeros(768, 3, 16, 16)}),
            r"missing: .* and \d+ more; .*; use facebook/sam-vit-base",
        ),
    ],
)
def test_load_sam_refuses_weights_of_another_architecture(weights_file, change, message):
    weights = load_file(weights_file)
    change(weights)
    save_file(weights, weights_file)
    with pytest.raises(WeightsError, match=message):
        load_sam(weights_file)


def test_load_sam_refuses_a_truncated_file(weights_file):
    weights_file.write_bytes(weights_file.read_bytes()[:-1000])
    with pytest.raises(WeightsError, match=r"tiny.safetensors is truncated, corrupt or missing .*; download it again"):
        load_sam(weights_file)


@pytest.mark.parametrize("name", ["no/such/sam.safetensors", "sam_vit_b_01ec64.pth", "./sam", "/no/folder"])
def test_a_missing_file_never_asks_the_hub(name, monkeypatch):
    monkeypatch.setattr(sam_module, "hf_hub_download", refuse)
    with pytest.raises(ModelNotFoundError, match="found no such file; use facebook/sam-vit-base"):
        SegmentAnythingSegmenter.from_pretrained(name)


# --- the official checkpoints


@pytest.fixture
def official(sam, tmp_path, monkeypatch):
    """A checkpoint whose digest is on the list."""
    path = tmp_path / "sam_vit_b_01ec64.pth"
    torch.save(sam.state_dict(), path)
    return trusted(path, monkeypatch)


def trusted(path, monkeypatch):
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setitem(sam_module.OFFICIAL_SHA256, digest, path.name)
    return path


def test_an_official_checkpoint_loads(official, segmenter, photo):
    assert SegmentAnythingSegmenter.from_pretrained(official, device="cpu").segment(photo, BOXES) == segmenter.segment(
        photo, BOXES
    )


def test_an_altered_official_checkpoint_is_refused(official):
    content = bytearray(official.read_bytes())
    content[len(content) // 2] ^= 1
    official.write_bytes(content)
    with pytest.raises(
        WeightsError, match=r"sam_vit_b_01ec64.pth has sha256 [0-9a-f]{12}…, .* altered .*download it again"
    ):
        load_sam(official)


def test_the_digests_are_three_sha256_of_the_published_names():
    names = set(sam_module.OFFICIAL_SHA256.values())
    assert names == {"sam_vit_b_01ec64.pth", "sam_vit_l_0b3195.pth", "sam_vit_h_4b8939.pth"}
    assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in sam_module.OFFICIAL_SHA256)


class Bomb:
    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("listed", [False, True])
def test_a_pickle_is_never_executed(tmp_path, monkeypatch, legacy, listed):
    marker, path = tmp_path / "executed", tmp_path / "sam_vit_b_01ec64.pth"
    buffer = io.BytesIO()
    torch.save({"weights": Bomb(marker)}, buffer, _use_new_zipfile_serialization=not legacy)
    path.write_bytes(buffer.getvalue())
    if listed:
        trusted(path, monkeypatch)
    with pytest.raises(WeightsError, match="can't be read as plain tensors" if listed else "which none of"):
        load_sam(path)
    assert not marker.exists()
    pickle.loads(pickle.dumps(Bomb(marker)))
    assert marker.exists()


def test_other_pickles_are_not_even_opened(tmp_path):
    path = tmp_path / "pytorch_model.bin"
    path.touch()
    with pytest.raises(WeightsError, match=r"expected a .safetensors file or an official .*, got pytorch_model.bin"):
        load_sam(path)


# --- the Hub


def test_a_repository_is_downloaded_through_the_hub(weights_file, monkeypatch, segmenter, photo, tmp_path):
    calls = []

    def download(*args, **kwargs):
        calls.append((args, kwargs))
        return str(weights_file)

    monkeypatch.setattr(sam_module, "hf_hub_download", download)
    loaded = SegmentAnythingSegmenter.from_pretrained(
        "org/sam", revision="abc", cache_dir=tmp_path, local_files_only=True, token="hf_x", device="cpu"
    )
    assert loaded.segment(photo, BOXES) == segmenter.segment(photo, BOXES)
    expected = {"revision": "abc", "cache_dir": tmp_path, "local_files_only": True, "token": "hf_x"}
    assert calls == [(("org/sam", "model.safetensors"), expected)]


def test_from_pretrained_offline_needs_the_cache(tmp_path):
    with pytest.raises(
        ModelNotFoundError, match=r"'org/sam' is not \(completely\) in the cache and downloads are off; load it once"
    ):
        SegmentAnythingSegmenter.from_pretrained("org/sam", revision="v1", cache_dir=tmp_path, local_files_only=True)


def test_from_pretrained_refuses_a_name_that_no_repository_can_have(tmp_path):
    with pytest.raises(
        ModelNotFoundError,
        match=r"'a/b/c' is neither a folder here nor a Hub id .*; such as facebook/sam",
    ):
        SegmentAnythingSegmenter.from_pretrained("a/b/c", cache_dir=tmp_path)


@pytest.mark.parametrize(
    ("kind", "expected", "message"),
    [
        (hub_errors.GatedRepoError, HubError, r"org/sam is gated \(HTTP 403\); accept its license"),
        (
            hub_errors.RepositoryNotFoundError,
            ModelNotFoundError,
            "no such model on the Hub .*sam-vit-base",
        ),
        (hub_errors.RevisionNotFoundError, ModelNotFoundError, "org/sam has no revision 'v1'; its commits are at"),
        (
            hub_errors.RemoteEntryNotFoundError,
            ModelNotFoundError,
            "org/sam lacks a file .*; such as facebook/sam-vit-base",
        ),
        (hub_errors.OfflineModeIsEnabled, ModelNotFoundError, "downloads are off"),
        (ConnectionResetError, HubError, r"can't download org/sam: .*\(ConnectionResetError: .*\); check the network"),
    ],
)
def test_what_the_hub_says_becomes_one_line(monkeypatch, kind, expected, message):
    error = kind.__new__(kind)
    error.args = ("several\nlines",)
    error.response = SimpleNamespace(status_code=403, headers={})
    monkeypatch.setattr(sam_module, "hf_hub_download", partial(throw, error))
    with pytest.raises(expected, match=message) as caught:
        SegmentAnythingSegmenter.from_pretrained("org/sam", revision="v1")
    assert "\n" not in str(caught.value)


def test_no_network_is_told_from_not_in_the_cache(monkeypatch):
    error = hub_errors.LocalEntryNotFoundError("not found")
    error.__cause__ = ConnectionRefusedError("refused")
    monkeypatch.setattr(sam_module, "hf_hub_download", partial(throw, error))
    with pytest.raises(HubError, match=r"can't download org/sam: .*\(ConnectionRefusedError: refused\)"):
        SegmentAnythingSegmenter.from_pretrained("org/sam")
