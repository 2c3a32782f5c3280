"""Digests of files, and files that are whole or not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from fashion_retrieval._utils.files import sha256, verify_digests, write_atomically
from fashion_retrieval.errors import WeightsError

EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_sha256_is_that_of_the_content(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert sha256(tmp_path / "empty") == EMPTY


def test_verify_digests_of_what_fits_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    verify_digests(tmp_path, {"empty": EMPTY}, remedy="call again")


def test_verify_digests_names_the_file_and_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"expected the file a in .*, found none; call again"):
        verify_digests(tmp_path, {"a": EMPTY}, remedy="call again")
    (tmp_path / "a").write_bytes(b"x")
    with pytest.raises(WeightsError, match=r"a was altered or cut off: expected sha256 e3b0c44298fc…, got .*; call ag"):
        verify_digests(tmp_path, {"a": EMPTY}, remedy="call again")


def test_verify_digests_reads_no_file_whose_digest_is_known(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    verify_digests(tmp_path, {"a": EMPTY}, remedy="call again", known={"a": EMPTY})


def test_write_atomically_replaces_the_target_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    target.write_text("old")
    with write_atomically(target) as partial:
        assert (partial.parent, partial.suffix) == (tmp_path, ".json")
        partial.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


def test_write_atomically_after_an_error_leaves_the_target_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    target.write_text("old")

    def fail(partial: Path) -> None:
        partial.write_text("half")
        raise RuntimeError

    with pytest.raises(RuntimeError), write_atomically(target) as partial:
        fail(partial)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_write_atomically_writes_a_folder_too(tmp_path: Path) -> None:
    with write_atomically(tmp_path / "new") as partial:
        partial.mkdir()
        (partial / "a").touch()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a"]
