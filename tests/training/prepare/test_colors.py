"""The nine color names of drawn garments, and the JSON-lines files that commands go on with."""

import json
import os

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from fashion_retrieval.errors import ConfigError
from tests.support.deepfashion_tree import SIZE, draw_garment, write_tree
from training.data.deepfashion import mask_path, read_samples
from training.engine.files import LineFile
from training.prepare import colors as module
from training.prepare.__main__ import app, main
from training.prepare.colors import color_of, color_settings, prepare_colors
from training.prepare.garments import read_garments


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    root = tmp_path_factory.mktemp("deepfashion")
    trees = write_tree(root)
    for garments in trees.values():
        for garment in garments:
            x1, y1, x2, y2 = garment.box
            mask = np.zeros((SIZE[1], SIZE[0]), dtype=bool)
            mask[y1 + 10 : y2 - 8, x1 + 10 : x2 - 10] = True
            path = mask_path(root / "masks", garment.path.removeprefix("img/").removesuffix(".jpg"))
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(path)
    return root, trees


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_command_names_what_was_drawn(drawn, tmp_path):
    root, trees = drawn
    out = tmp_path / "colors.jsonl"
    done = CliRunner().invoke(app, ["colors", str(root), "--out", str(out), "--masks", str(root / "masks")])
    assert done.exit_code == 0, done.output
    assert f"22 colors in {out}" in done.stdout
    header, *rows = rows_of(out)
    assert header == {"kind": "colors", "names": "paper's nine", "pixels": "masks"}
    drawn_names = [garment.color for garments in trees.values() for garment in garments]
    named = [row["color"] for row in rows]
    assert np.mean([a == b for a, b in zip(named, drawn_names, strict=True)]) >= 0.9
    assert all(0.5 < row["share"] <= 1 for row in rows)
    samples = read_samples(root, ["train", "val"], masks=root / "masks", colors=out)
    assert [sample.color for sample in samples] == named[:16]


def test_names_of_the_wider_palette_go_to_the_nine(tmp_path):
    garment = read_garments(_white(tmp_path))[0]
    row = color_of(garment, None)
    assert (row["color"], row["seen"]) == ("gray", "white")


def _white(root):
    write_tree(root, {"train": 1, "val": 1, "test": 1})
    garment, _ = draw_garment(0)
    Image.new("RGB", SIZE, (250, 250, 250)).save(root / garment.path)
    return root


def test_an_interrupted_run_goes_on(drawn, tmp_path, monkeypatch):
    root, _ = drawn
    garments, straight, stopped = read_garments(root), tmp_path / "straight.jsonl", tmp_path / "stopped.jsonl"
    monkeypatch.setattr(module, "_BATCH", 4)
    assert prepare_colors(garments, LineFile(straight, color_settings(None)), masks=None) == []
    calls = []

    def stopping(*arguments):
        calls.append(arguments)
        if len(calls) == 11:
            raise KeyboardInterrupt
        return color_of(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(module, "color_of", stopping)
        with pytest.raises(KeyboardInterrupt):
            prepare_colors(garments, LineFile(stopped, color_settings(None)), masks=None)
    assert len(rows_of(stopped)) == 1 + 8
    os.truncate(stopped, stopped.stat().st_size - 9)
    lines = LineFile(stopped, color_settings(None))
    assert len(lines.done) == 7
    prepare_colors(garments, lines, masks=None)
    assert stopped.read_bytes() == straight.read_bytes()


def test_what_cannot_be_named_is_reported(drawn, tmp_path):
    root, _ = drawn
    garments = read_garments(root, ["val"])
    mask_path(tmp_path, garments[0].id).parent.mkdir(parents=True)
    Image.new("1", SIZE).save(mask_path(tmp_path, garments[0].id))
    lines = LineFile(tmp_path / "colors.jsonl", color_settings(tmp_path))
    failures = prepare_colors(garments[:2], lines, masks=tmp_path)
    assert "the mask of" in failures[0][1]
    assert "is empty" in failures[0][1]
    assert "can't be read" in failures[1][1]
    done = CliRunner().invoke(app, ["colors", str(root), "--out", str(tmp_path / "c.jsonl"), "--masks", str(tmp_path)])
    assert done.exit_code == 1
    assert "22 failed, the rest is done:" in done.stderr
    assert "and 2 more" in done.stderr


def test_a_file_of_other_settings_is_refused(tmp_path):
    path = tmp_path / "lines.jsonl"
    LineFile(path, {"kind": "colors", "pixels": "boxes"}).append([{"id": "a"}])
    before = path.read_bytes()
    with pytest.raises(
        ConfigError, match=r"lines\.jsonl was made with pixels 'boxes' instead of 'masks'; take another"
    ):
        LineFile(path, {"kind": "colors", "pixels": "masks"})
    assert path.read_bytes() == before
    assert LineFile(path, {"kind": "colors", "pixels": "boxes"}).done == {"a"}


def test_a_line_that_is_no_row_is_refused(tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_text('{"kind": "colors"}\n{"id": "a"}\nnonsense\n{"id": "b"}\n')
    with pytest.raises(ConfigError, match="line 3 is no row of this command"):
        LineFile(path, {"kind": "colors"})


def test_a_file_that_cannot_be_opened_is_one_line(drawn, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["prepare", "colors", str(drawn[0]), "--out", str(drawn[0] / "img")])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 1
    assert capsys.readouterr().err == f"error: {drawn[0] / 'img'}: Is a directory\n"
