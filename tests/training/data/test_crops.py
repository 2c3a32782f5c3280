"""The cache of crops: what is read, resumed, made again and refused."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from fashion_retrieval.errors import ConfigError, ImageError
from tests.support.tiny import drawn_photo
from training.data import crops
from training.data.crops import Crop, fit, load_crops, read_crop
from training.data.deepfashion import photo_size
from training.data.manifest import Sample
from training.data.pixels import Photo, _read
from training.prepare.photos import look


@pytest.fixture
def garments(tmp_path):
    found = []
    for number in range(5):
        photo = tmp_path / f"{number}.png"
        drawn_photo((30, 40), seed=number).save(photo)
        mask = tmp_path / f"{number}.mask.png"
        Image.fromarray((np.indices((40, 30))[0] > 20).astype(np.uint8)).save(mask)
        found.append(Sample("products", str(number), photo, box=(2, 4, 22, 34), mask=mask, mask_value=1))
    return [*(Crop(s, masked=False) for s in found), *(Crop(s, masked=True) for s in found)]


def files(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_rows_come_in_the_order_asked(garments, tmp_path, monkeypatch):
    monkeypatch.setattr(crops, "_SHARD", 4)
    found = load_crops(garments, (24, 20), tmp_path / "cache")
    assert len(found) == 10
    rows = found[torch.tensor([9, 0, 4, 4])]
    assert (rows.shape, rows.dtype) == ((4, 3, 24, 20), torch.uint8)
    for row, number in zip(rows, [9, 0, 4, 4], strict=True):
        sample, masked = garments[number]
        wanted = fit(read_crop(sample, masked=masked), (24, 20))
        np.testing.assert_array_equal(row.permute(1, 2, 0).numpy(), wanted)
    assert len(files(tmp_path / "cache")) == 3
    assert sum(path.stat().st_size for path in (tmp_path / "cache").iterdir()) == 10 * 3 * 24 * 20 + 3 * 128


def test_an_interrupted_cache_goes_on_where_it_was(garments, tmp_path, monkeypatch):
    monkeypatch.setattr(crops, "_SHARD", 4)
    seen = []

    def stopping(sample, *, masked):
        seen.append(sample.id)
        if len(seen) == 6:
            raise KeyboardInterrupt
        return read_crop(sample, masked=masked)

    with monkeypatch.context() as patch:
        patch.setattr(crops, "read_crop", stopping)
        with pytest.raises(KeyboardInterrupt):
            load_crops(garments, (24, 20), tmp_path / "cache")
    before = files(tmp_path / "cache")
    assert len(before) == 1
    load_crops(garments, (24, 20), tmp_path / "cache")
    assert before.items() < files(tmp_path / "cache").items()


def test_only_what_changed_is_cropped_again(garments, tmp_path, monkeypatch):
    monkeypatch.setattr(crops, "_SHARD", 4)
    cache = tmp_path / "cache"
    load_crops(garments, (24, 20), cache)
    before = files(cache)
    damaged = cache / sorted(before)[0]
    damaged.write_bytes(damaged.read_bytes()[:100])
    drawn_photo((30, 40), seed=9).save(garments[8].sample.photo)  # number 3, in the first and the last shard
    os.utime(garments[8].sample.photo, ns=(1, 1))
    again = load_crops(garments, (24, 20), cache)
    changed = [garments[0], garments[3]]
    for row, (sample, masked) in zip(again[torch.tensor([0, 3])], changed, strict=True):
        np.testing.assert_array_equal(row.permute(1, 2, 0), fit(read_crop(sample, masked=masked), (24, 20)))
    assert len(files(cache).keys() - before.keys()) == 2
    moved = [Crop(replace(garments[0].sample, box=(0, 0, 9, 9)), masked=False)]
    assert not torch.equal(load_crops(moved, (24, 20), cache)[torch.tensor([0])], again[torch.tensor([0])])


def test_load_crops_names_a_photo_that_cannot_be_read(garments, tmp_path):
    photo = garments[2].sample.photo
    photo.write_bytes(b"no photo")
    with pytest.raises(ImageError, match=rf"{photo}' is not a photo in a known format"):
        load_crops(garments, (24, 20), tmp_path / "cache")
    photo.unlink()
    with pytest.raises(ImageError, match=rf"{photo} can't be read \(No such file"):
        load_crops(garments, (24, 20), tmp_path / "cache")
    assert not any((tmp_path / "cache").iterdir())


def test_a_disk_without_room_is_refused_before_anything_is_written(garments, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 14_399})
    monkeypatch.setattr(crops.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ConfigError, match="set `cache` to a folder with more room"):
        load_crops(garments, (24, 20), tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
    usage.free = 14_400
    assert len(load_crops(garments, (24, 20), Path(tmp_path / "cache"))) == 10


def test_exif_orientation_turns_photos_before_boxes_and_labels_count(tmp_path):
    upright, exif = drawn_photo((30, 40), seed=1), Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # to be turned by 90 degrees clockwise
    photo = tmp_path / "0.jpg"
    upright.transpose(Image.Transpose.ROTATE_90).save(photo, exif=exif, quality=95, subsampling=0)
    found = read_crop(Sample("products", "0", photo, box=(2, 4, 22, 34)), masked=False)
    assert found.size == (20, 30)
    wanted = np.asarray(upright.crop((2, 4, 22, 34)), dtype=np.int16)
    assert np.abs(np.asarray(found) - wanted).mean() < 8
    assert photo_size(photo) == look(photo, decode=False).size == (30, 40)
    pixels, allowed = _read(Photo(photo, kinds=("dress",)), size=(40, 30), table=np.zeros(1, dtype=np.int16))
    assert pixels.shape == (40, 30, 3)
    assert allowed.shape == (40, 30)


def test_read_crop_refuses_a_mask_of_another_size(garments, tmp_path):
    Image.new("L", (9, 9)).save(garments[0].sample.mask)
    with pytest.raises(ImageError, match=r"0\.mask\.png and .*0\.png differ in size; make the mask again"):
        read_crop(garments[0].sample, masked=True)
