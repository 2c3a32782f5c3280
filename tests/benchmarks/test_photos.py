"""benchmarks/photos: scene, profiles, the measure of colors, damaged photos, and each part on next to nothing."""

from __future__ import annotations

import random
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from benchmarks import material, photos
from benchmarks.photos import colors, mutations, profiles, report, scene
from fashion_retrieval.images.load import load_pixels

# Pairs of CIELAB colors and their CIEDE2000, of the supplement to Sharma, Wu and Dalal, 2005.
PUBLISHED = (
    ((50.0, 2.6772, -79.7751), (50.0, 0.0, -82.7485), 2.0425),
    ((50.0, 2.5, 0.0), (58.0, 24.0, 15.0), 19.4535),
    ((50.0, 2.49, -0.001), (50.0, -2.49, 0.0011), 7.2195),
    ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
    ((22.7233, 20.0904, -46.694), (23.0331, 14.973, -42.5619), 2.0373),
    ((2.0776, 0.0795, -1.135), (0.9033, -0.0636, -0.5514), 0.9082),
)


@pytest.mark.parametrize(("one", "other", "expected"), PUBLISHED)
def test_delta_e_2000_equals_the_published_values(one, other, expected) -> None:
    assert colors.delta_e_2000(np.array(one), np.array(other)) == pytest.approx(expected, abs=1e-4)
    assert colors.delta_e_2000(np.array(other), np.array(one)) == pytest.approx(expected, abs=1e-4)


def test_delta_e_2000_of_equal_colors_and_of_grays() -> None:
    gray, lighter = np.array([50.0, 0.0, 0.0]), np.array([51.0, 0.0, 0.0])
    assert colors.delta_e_2000(gray, gray) == 0
    assert colors.delta_e_2000(gray, lighter) == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_scene_stored_in_any_orientation_is_read_upright(orientation: int) -> None:
    upright = scene.figure(60, 80)
    pixels = load_pixels(scene.jpeg(upright, orientation=orientation))
    assert pixels.shape == upright.shape == (80, 60, 3)
    assert np.abs(pixels.astype(int) - upright).mean() < 4


def test_matrix_profile_is_display_p3_as_others_know_it() -> None:
    profile = profiles.matrix_profile("Display P3", profiles.DISPLAY_P3)
    read = ImageCms.ImageCmsProfile(BytesIO(profile)).profile
    assert (read.profile_description, read.xcolor_space.strip(), len(profile)) == (
        "Display P3",
        "RGB",
        read_size(profile),
    )
    red = profiles.converted(Image.new("RGB", (1, 1), (255, 0, 0)), profile)
    assert red.getpixel((0, 0)) == pytest.approx((234, 51, 35), abs=1)
    back = profiles.converted(red, profile, back=True)
    assert back.getpixel((0, 0)) == pytest.approx((255, 0, 0), abs=2)


def read_size(profile: bytes) -> int:
    return int.from_bytes(profile[:4], "big")


def test_find_names_the_package_of_an_absent_profile(tmp_path: Path) -> None:
    found, absent = profiles.find(tmp_path)
    assert list(found) == ["Display P3"]
    assert [line.partition(":")[0] for line in absent] == ["AdobeRGB", "ProPhoto", "SWOP CMYK", "FOGRA39 CMYK"]
    assert absent[2] == f"SWOP CMYK: no default_cmyk.icc in {tmp_path}; it is in Debian's libgs-common"
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/AdobeRGB1998.icc").write_bytes(b"profile")
    assert profiles.find(tmp_path)[0]["AdobeRGB"] == b"profile"


def test_compare_counts_other_names_and_takes_the_median() -> None:
    wanted = [("red", "#ff0000"), ("gray", "#808080"), None, ("blue", "#0000ff")]
    found = [("red", "#ff0000"), ("white", "#828282"), None, None]
    compared = colors.compare(found, wanted)
    assert compared["names_differ"] == 0.5
    assert 0 < compared["hex_de2000"] < 0.6  # the median of 0 and of two levels of gray


def test_cases_are_the_same_for_the_same_seed() -> None:
    first, again, other = (list(mutations.cases(60, seed)) for seed in (0, 0, 1))
    assert first == again
    assert first != other
    assert len({name for name, *_ in first}) >= 19


def test_originals_are_read_where_pillow_has_the_format() -> None:
    for name, content in mutations.originals().items():
        if name != "HEIC":
            assert load_pixels(content).shape in {(128, 96, 3), (96, 128, 3)}, name


def test_cut_jpeg_ends_with_its_end_mark() -> None:
    content = mutations.originals()["JPG"]
    changed = mutations.DAMAGES["cut, an end mark behind"](content, random.Random(0))
    assert len(changed) < len(content)
    assert changed[:2] == b"\xff\xd8"
    assert changed[-2:] == b"\xff\xd9"


def test_chunks_swapped_moves_whole_chunks() -> None:
    png = mutations.originals()["PNG palette"]
    starts = mutations._starts(png)
    assert [png[start + 4 : start + 8] for start in starts[:-1]] == [b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"]
    assert starts[-1] == len(png)
    changed = mutations.DAMAGES["chunks swapped"](png, random.Random(0))
    assert changed != png
    assert {png[a:b] in changed for a, b in pairwise(starts)} == {True}


def test_worker_that_hangs_or_dies_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutations, "SECONDS", 0.5)
    program = """
import json, os, sys, time
for line in sys.stdin:
    time.sleep(9 * ("hang" in line))
    if "die" in line: os._exit(3)
    print(json.dumps({"outcome": "read", "reason": "", "seconds": 0, "memory_mb": 0, "said": 0}), flush=True)
"""
    with mutations.Worker(program) as worker:
        found = [worker.read(Path(name)) for name in ("good", "hang", "good", "die", "good")]
    assert [one["outcome"] for one in found] == ["read", "hang", "read", "crash", "read"]
    assert found[3]["reason"] == "exit code 3"
    assert [mutations.faults_of(one) for one in found] == [[], ["hangs"], [], ["crashes"], []]


def test_faults_of_memory_time_and_words() -> None:
    good = {"outcome": "refused", "reason": "", "seconds": 0.1, "memory_mb": 3.0, "said": 0}
    assert mutations.faults_of(good) == []
    assert mutations.faults_of(good | {"memory_mb": 1100.0, "seconds": 6.0}) == ["hangs", "over 1 GB"]
    assert mutations.faults_of(good | {"reason": "… (MemoryError)"}) == ["over 1 GB"]
    assert mutations.faults_of(good | {"outcome": "traceback", "said": 40}) == ["tracebacks", "warnings"]


def test_quick_parts_fill_every_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(material, "PACK", tmp_path / "none")
    measured = photos.measure(tmp_path, quick=True, folder=tmp_path)
    assert list(measured) == list(photos.PARTS)
    assert measured["colors"]["source"] == "drawn"
    assert list(measured["colors"]["rows"]) == [
        *(f"sRGB, one level {name}" for name in ("lighter", "redder", "bluer")),
        "sRGB, JPEG",
        "Display P3",
    ]
    assert measured["colors"]["rows"]["Display P3"]["at_best"]["hex_de2000"] < 2
    memory = measured["memory"]["rows"][0]
    assert memory["times_decoded"] == pytest.approx(memory["above_loaded_mb"] / 2 / (3 * 1008 * 756 / 2**20), abs=0.05)
    assert sum(row["photos"] for row in measured["mutations"]["by_kind"].values()) == 40
    page = "\n\n".join(report.tables(measured, measured | {"commit": "0123abc"}))
    assert page.count("### ") == 4
    assert '"Before" is commit 0123abc' in page
    assert "Left out: AdobeRGB: no AdobeRGB1998.icc" in page
