"""Files: reading JSON, digests, and writing them whole."""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any
from uuid import uuid4

from fashion_retrieval.errors import ConfigError, InputError, WeightsError


def asset(name: str) -> str:
    """The text of a file that comes with the package."""
    return files("fashion_retrieval").joinpath("assets", name).read_text(encoding="utf-8")


def read_object(path: Path, *, remedy: str) -> dict[str, Any]:
    """The JSON object that a file holds; a ConfigError that ends with the remedy where it holds anything else."""
    try:
        data = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid JSON ({error}); {remedy}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path} must hold a JSON object, got {type(data).__name__}; {remedy}")
    return data


def check_downloaded(path: Path) -> None:
    """Raise a WeightsError for a pointer of Git LFS, which a clone without it has in the place of a large file."""
    if path.is_file():
        with path.open("rb") as file:
            if file.read(40) == b"version https://git-lfs.github.com/spec/"[:40]:
                raise WeightsError(f"{path} is only a pointer of Git LFS; run: git lfs install && git lfs pull")


def sha256(path: Path) -> str:
    """Hex digest of a file's content, read piece by piece."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify_digests(
    folder: Path, digests: Mapping[str, str], *, remedy: str, known: Mapping[str, str] | None = None
) -> None:
    """Compare files with the hex SHA-256 that they should have; `known` digests are not computed again.

    A WeightsError that ends with the remedy tells of a file that is missing, cut off or altered.
    """
    for name, expected in digests.items():
        path = folder / name
        if not path.is_file():
            raise WeightsError(f"expected the file {name} in {folder}, found none; {remedy}")
        check_downloaded(path)
        actual = (known or {}).get(name) or sha256(path)
        if actual != expected:
            got = f"expected sha256 {expected[:12]}…, got {actual[:12]}…"
            raise WeightsError(f"{path} was altered or cut off: {got}; {remedy}")


@contextmanager
def write_atomically(target: Path) -> Iterator[Path]:
    """A path to write to; at the end it takes the place of `target`, so that no reader ever sees half a file.

    The path lies beside the target and ends like it. After an error it is removed, and the target stays as it was.
    """
    with _partial(target) as partial:
        yield partial
        partial.replace(target)


@contextmanager
def write_together(first: Path, last: Path) -> Iterator[tuple[Path, Path]]:
    """Two paths to write to, of files that belong together: `write_atomically` for both or neither.

    The old `last` goes before the new `first` comes: whenever the process ends, no old file lies beside a new one.
    """
    aside = last.with_name(f".{uuid4().hex[:12]}.partial{last.suffix}")
    with _partial(first) as new_first, _partial(last) as new_last:
        yield new_first, new_last
        if last.exists():
            last.replace(aside)
        try:
            new_first.replace(first)
        except OSError:
            if aside.exists():
                aside.replace(last)
            raise
        new_last.replace(last)
        aside.unlink(missing_ok=True)


@contextmanager
def _partial(target: Path) -> Iterator[Path]:
    """A path beside the target, removed at the end; an error of a full disk says so, and names the target."""
    partial = target.with_name(f".{uuid4().hex[:12]}.partial{target.suffix}")
    try:
        yield partial
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT) and error.filename != str(target):
            reason = "the disk is full, nothing was changed; free some space and run it again"
            raise OSError(error.errno, reason, str(target)) from error
        raise
    finally:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        partial.unlink(missing_ok=True)


def check_target(path: str | Path, endings: Sequence[str]) -> Path:
    """Refuse a file that could not be written, before anything is computed, with an `InputError`."""
    if not isinstance(path, str | Path):
        raise InputError(f"a file to save must be a path, got {type(path).__name__}")
    target = Path(path)
    if target.suffix.lower() not in endings:
        raise InputError(f"a file to save must end in {', '.join(endings)}, got {target.name!r}")
    if not target.absolute().parent.is_dir():
        raise InputError(f"a file to save must lie in an existing folder, got {path}; create {target.parent} first")
    return target


def write_text(target: Path, text: str) -> None:
    """Write UTF-8 with line ends as they are, whole or not at all."""
    with write_atomically(target) as part:
        part.write_bytes(text.encode())
