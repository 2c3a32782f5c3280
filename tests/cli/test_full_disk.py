"""Two files that belong together change together, and a full disk is called one."""

import errno
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from fashion_retrieval._utils.files import write_atomically, write_together
from fashion_retrieval.cli import app
from fashion_retrieval.cli.output import write_embeddings
from tests.support.tiny import drawn_photo, tiny_folder

OLD, NEW = np.zeros((2, 4), np.float32), np.arange(8, dtype=np.float32).reshape(2, 4)


@pytest.fixture
def before(tmp_path):
    write_embeddings(tmp_path / "x.npy", ["a", "b"], list(OLD))
    return tmp_path


def state(folder):
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert set(files) <= {"x.npy", "x.ids.txt"}
    return files


def full(*_args, **_options):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_files_are_those_of_numpy(before):
    write_embeddings(before / "x.npy", ["c", "d"], list(NEW))
    assert np.array_equal(np.load(before / "x.npy"), NEW)
    assert (before / "x.ids.txt").read_text(encoding="utf-8") == "c\nd\n"
    assert len(state(before)) == 2


@pytest.mark.parametrize("writer", ["ids", "embeddings"])
def test_full_disk_leaves_both_files_as_they_were(before, monkeypatch, writer):
    old = state(before)
    if writer == "ids":
        monkeypatch.setattr(Path, "write_bytes", full)
    else:
        monkeypatch.setattr(np.lib.format, "write_array_header_1_0", full)
    with pytest.raises(OSError, match="the disk is full, nothing was changed; free some space") as caught:
        write_embeddings(before / "x.npy", ["c", "d"], list(NEW))
    monkeypatch.undo()
    assert Path(caught.value.filename).parent == before
    assert state(before) == old


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_a_rename_that_fails_never_leaves_a_mix(before, monkeypatch, failing):
    old, calls, replace = state(before), [], Path.replace

    def counted(path, target):
        calls.append(path)
        if len(calls) == failing + 1:
            raise OSError(errno.EIO, "broken")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", counted)
    with pytest.raises(OSError, match="broken"):
        write_embeddings(before / "x.npy", ["c", "d"], list(NEW))
    monkeypatch.undo()
    left = {path.name: path.read_bytes() for path in before.iterdir() if ".partial" not in path.name}
    assert left == old or "x.npy" not in left


def test_writing_together_needs_no_old_files(tmp_path):
    with write_together(tmp_path / "x.ids.txt", tmp_path / "x.npy") as (first, last):
        first.write_text("a")
        last.write_text("b")
    assert state(tmp_path) == {"x.ids.txt": b"a", "x.npy": b"b"}


def test_other_errors_stay_as_they_are(tmp_path):
    with pytest.raises(PermissionError), write_atomically(tmp_path / "x.npy"):
        raise PermissionError(errno.EACCES, "no", "y")


def test_encode_names_the_file_of_a_bad_photo(tmp_path):
    model = tiny_folder(tmp_path / "model")
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"no photo")
    photos = [str(tmp_path / name) for name in ("a.jpg", "b.jpg")]
    command = ["encode", *photos, "--out", str(tmp_path / "x.npy"), "--model", str(model)]
    stopped = CliRunner().invoke(app, command)
    assert (stopped.exit_code, stopped.stderr.count("\n")) == (1, 1)
    assert stopped.stderr.startswith(f"error: photo '{photos[0]}' is not a photo")
    skipped = CliRunner().invoke(app, [*command, "--on-error", "skip"])
    assert skipped.exit_code == 1
    assert [line.split(":")[0].strip() for line in skipped.stderr.splitlines()] == ["2 failed", *photos]
    drawn_photo((24, 32), seed=0).save(tmp_path / "c.png")
    assert CliRunner().invoke(app, [*command[:1], str(tmp_path / "c.png"), *command[3:]]).exit_code == 0
    assert np.load(tmp_path / "x.npy").shape == (1, 16)
