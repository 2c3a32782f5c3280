"""Masks by a small Segment Anything: what is on the disk, stopping and going on, shards, the contact sheet."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from fashion_retrieval.errors import ConfigError
from fashion_retrieval.models.sam import SegmentAnythingSegmenter
from tests.support.deepfashion_tree import SIZE, write_tree
from tests.support.tiny_sam import filled, tiny_sam
from training.data.deepfashion import clip_box, mask_path, read_samples
from training.data.manifest import region_mask
from training.prepare import masks as module
from training.prepare.__main__ import app
from training.prepare.contact_sheet import SHEET, draw_sheet, draw_tile
from training.prepare.garments import read_garments
from training.prepare.masks import SETTINGS, encode_mask, load_segmenter, mask_settings, prepare_masks

COUNTS = {"train": 5, "val": 2, "test": 2}
MADE_WITH = {"kind": "masks", "sam": "tiny"}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("deepfashion")
    write_tree(root, COUNTS)
    return root


@pytest.fixture(scope="module")
def segmenter():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return SegmentAnythingSegmenter(filled(tiny_sam()), device="cpu")


@pytest.fixture(scope="module")
def straight(root, segmenter, tmp_path_factory):
    out = tmp_path_factory.mktemp("masks")
    report = prepare_masks(read_garments(root), segmenter, out, MADE_WITH)
    return out, report


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_mask_is_sams_own(root, segmenter, straight):
    out, report = straight
    samples = read_samples(root, ["train", "val", "test"], masks=out)
    scores = []
    for sample in samples:
        with Image.open(sample.photo) as photo, Image.open(sample.mask) as saved:
            region = segmenter.segment(photo.convert("RGB"), np.array([sample.box], dtype=np.float32))[0]
            assert (saved.mode, saved.size) == ("1", SIZE)
            assert float(saved.info["iou"]) == pytest.approx(region.score, abs=5e-5)
        assert sample.mask_value == 1
        np.testing.assert_array_equal(region_mask(sample), region.mask)
        scores.append(region.score)
        assert 0 < region.mask.sum() < region.mask.size
        assert sample.mask.stat().st_size < 2500
    assert (report.made, report.kept, report.empty, report.failures) == (9, 0, scores.count(0), ())
    assert report.mean_iou == pytest.approx(np.mean(scores), abs=1e-6)
    assert json.loads((out / SETTINGS).read_text()) == MADE_WITH


class Stopping:
    """A segmenter that is interrupted at its fourth photo."""

    def __init__(self, segmenter):
        self.segmenter, self.calls = segmenter, 0

    def segment(self, image, boxes):
        self.calls += 1
        if self.calls == 4:
            raise KeyboardInterrupt
        return self.segmenter.segment(image, boxes)


def test_an_interrupted_run_goes_on_to_the_same_files(root, segmenter, straight, tmp_path):
    garments = read_garments(root)
    with pytest.raises(KeyboardInterrupt):
        prepare_masks(garments, Stopping(segmenter), tmp_path, MADE_WITH)
    assert len(files(tmp_path)) == 1 + 3
    torn = tmp_path / f"{garments[1].id}.png"
    torn.write_bytes(b"")
    kept = (tmp_path / f"{garments[0].id}.png").stat().st_mtime_ns
    report = prepare_masks(garments, segmenter, tmp_path, MADE_WITH)
    assert (report.made, report.kept) == (7, 2)
    assert files(tmp_path) == files(straight[0])
    assert (tmp_path / f"{garments[0].id}.png").stat().st_mtime_ns == kept


def test_shards_make_what_one_process_makes(root, segmenter, straight, tmp_path):
    garments = read_garments(root)
    made = [prepare_masks(garments, segmenter, tmp_path, MADE_WITH, rank=r, world_size=2).made for r in (0, 1)]
    assert made == [5, 4]
    assert files(tmp_path) == files(straight[0])


def test_masks_of_two_models_do_not_mix(root, segmenter, straight, tmp_path):
    before = files(straight[0])
    with pytest.raises(
        ConfigError, match=r"masks.json was made with sam 'tiny' instead of 'vit_h'; take another --out"
    ):
        prepare_masks(read_garments(root), segmenter, straight[0], MADE_WITH | {"sam": "vit_h"})
    assert files(straight[0]) == before
    (tmp_path / SETTINGS).write_text("{")
    with pytest.raises(ConfigError, match="kind None instead of 'masks', sam None instead of 'tiny'"):
        prepare_masks(read_garments(root), segmenter, tmp_path, MADE_WITH)


def test_bad_photos_are_named_and_the_rest_is_done(root, segmenter, straight, tmp_path):
    garments = read_garments(root)
    (tmp_path / "bad.jpg").write_bytes(b"no photo")
    garments[2] = replace(garments[2], photo=tmp_path / "bad.jpg")
    garments[5] = replace(garments[5], box=(200, 10, 220, 40))
    report = prepare_masks(garments, segmenter, tmp_path / "out", MADE_WITH)
    assert report.made == 7
    assert [name for name, _ in report.failures] == [garments[2].id, garments[5].id]
    assert "bad.jpg' is not a photo in a known format" in report.failures[0][1]
    assert "lies outside its 96x128 photo" in report.failures[1][1]
    whole = files(straight[0])
    assert all(whole[name] == data for name, data in files(tmp_path / "out").items())


def test_the_sheet_shows_photo_mask_and_box(root, straight, tmp_path):
    out = shutil.copytree(straight[0], tmp_path / "masks")
    garments = read_garments(root)
    assert draw_sheet(garments, tmp_path / "nothing") is None
    assert draw_sheet(garments, out) == out / SHEET
    with Image.open(out / SHEET) as image:
        sheet = np.asarray(image.convert("RGB"))
    assert sheet.shape == (512, 1152, 3)  # nine garments: six and three
    half = np.zeros((SIZE[1], SIZE[0]), dtype=bool)
    half[:, :48] = True
    mask_path(out, garments[0].id).write_bytes(encode_mask(half, 0.875))
    tile = np.asarray(draw_tile(garments[0], out)).astype(int)
    assert tile.shape == (251, 188, 3)
    with Image.open(garments[0].photo) as photo:
        pixels = np.asarray(photo.convert("RGB")).astype(int)
    np.testing.assert_allclose(tile[235, 20], pixels[120, 10], atol=3)
    np.testing.assert_allclose(tile[235, 168], pixels[120, 86] // 3, atol=3)
    x1, y1, *_ = (round(side * 188 / SIZE[0]) for side in clip_box(garments[0].box, SIZE))
    np.testing.assert_array_equal(tile[y1, x1], (255, 60, 60))
    draw_sheet(garments, out)
    with Image.open(out / SHEET) as image:
        np.testing.assert_array_equal(np.asarray(image)[2:253, 2:190], tile)


def test_the_command(root, segmenter, straight, tmp_path, monkeypatch):
    asked = []

    def load(*arguments):
        asked.append(arguments)
        return segmenter

    monkeypatch.setattr(module, "load_segmenter", load)
    arguments = ["masks", str(root), "--out", str(tmp_path), "--sam", "vit_b", "--split", "val", "--split", "test"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert asked == [("vit_b", None, "auto", "float32")]
    assert "4 masks made, 0 were there, 0 failed; mean estimated IoU 0." in done.stdout
    assert json.loads((tmp_path / SETTINGS).read_text()) == mask_settings("vit_b", None, "float32")
    made = {name: data for name, data in files(tmp_path).items() if name not in (SETTINGS, SHEET)}
    assert len(made) == 4
    assert made.items() <= files(straight[0]).items()
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "0 masks made, 2 were there" in CliRunner().invoke(app, arguments).stdout


def test_weights_must_be_of_the_size_asked_for(segmenter, monkeypatch, tmp_path):
    monkeypatch.setattr(SegmentAnythingSegmenter, "from_pretrained", lambda *_, **__: segmenter)
    with pytest.raises(ConfigError, match="expected vit_h, 1280 wide, got weights 32 wide; name their size with --sam"):
        load_segmenter("vit_h", None, "cpu", "float32")
    (tmp_path / "model.safetensors").write_bytes(b"abc")
    digest = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    for weights in (tmp_path, tmp_path / "model.safetensors"):
        assert mask_settings("vit_h", weights, "float32")["weights"] == digest
    assert mask_settings("vit_h", None, "float32")["weights"] == "facebook/sam-vit-huge"
