"""JSON-lines files that a stopped command goes on with, and the settings that their rows were made with."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fashion_retrieval._utils.files import write_atomically
from fashion_retrieval.errors import ConfigError


def check_same_settings(path: Path, found: object, settings: Mapping[str, Any]) -> None:
    """Refuse to go on with settings that differ from those of the existing results, and name how."""
    if found == settings:
        return
    before = found if isinstance(found, dict) else {}
    names = [name for name in {**settings, **before} if settings.get(name) != before.get(name)]
    changes = ", ".join(f"{name} {before.get(name)!r} instead of {settings.get(name)!r}" for name in names)
    raise ConfigError(f"{path} was made with {changes or 'no settings'}; take another --out, or remove it")


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all; its folder is made if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path) as partial:
        partial.write_text(text, encoding="utf-8")


class LineFile:
    """A JSON-lines file: its settings in the first line, then rows with an `id`; `done` has the ids."""

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Open the file, or begin it; other settings are refused. A last line that was cut off is removed."""
        self.path = path
        self.done: set[str] = set()
        data = path.read_bytes() if path.exists() else b""
        whole = data.rfind(b"\n") + 1
        lines = data[:whole].splitlines()
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
                self.done |= {row["id"]} if number > 1 else set()
            except (ValueError, KeyError, TypeError):
                raise ConfigError(f"{path} line {number} is no row of this command; remove the line") from None
            if number == 1:
                check_same_settings(path, row, settings)
        if not lines:
            write_text(path, json.dumps(settings) + "\n")
        elif whole < len(data):
            os.truncate(path, whole)

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows in one write that reaches the disk."""
        with self.path.open("ab") as file:
            file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
            file.flush()
            os.fsync(file.fileno())
        self.done |= {row["id"] for row in rows}
