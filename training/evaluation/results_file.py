"""Results files: what a figure can be traced to, JSON and Markdown written whole."""

from __future__ import annotations

import json
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import typer

from fashion_retrieval import FashionModel, __version__
from fashion_retrieval._utils.files import sha256
from fashion_retrieval.errors import InputError
from fashion_retrieval.hub.download import EMBEDDED, resolve

RESULTS = Path(__file__).parents[1] / "results"


def provenance(model: FashionModel, id_or_path: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """What a figure can be traced to: model, SHA-256 of its weights, settings, versions, commit."""
    weights = sorted(resolve(id_or_path).rglob("*.safetensors"))
    return {
        "model": model.model_id,
        "fingerprint": model.fingerprint,
        "sha256": {path.name: sha256(path) for path in weights},
        "versions": versions(),
        "commit": _commit(),
        "config": dict(config),
    }


def versions() -> dict[str, str]:
    """What measured."""
    return {
        "fashion_retrieval": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _commit() -> str | None:
    """The commit of this file's repository, "-dirty" behind it where files differ from it; None outside of one."""
    describe = ["git", "--no-optional-locks", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        told = subprocess.run(
            describe, cwd=Path(__file__).parent, capture_output=True, text=True, check=True, timeout=60
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return told.stdout.strip() or None


def destination(folder: Path, kind: str, *more: str, models: Sequence[str], split: str) -> Path:
    """A file of its own for all that isn't usual: `more` and, unless it is the embedded one alone, the models."""
    names = [] if [*models] == [EMBEDDED] else [Path(model).name for model in models]
    return folder / ("_".join(word for word in (kind, *more, *names, split) if word) + ".json")


def check_output(path: Path) -> None:
    """Refuse, before anything is measured, a place that can't be written to.

    Raises:
        InputError: It is a folder, its name isn't one of JSON, or its folder can't be made.
    """
    if path.is_dir() or path.suffix != ".json":
        raise InputError(f"--output must be a .json file (a .md file is written beside it), got {path}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--output {path} can't be written ({error.strerror}); choose another place") from None


def write_figures(figures: Mapping[str, Any], path: Path, markdown: str | None = None) -> None:
    """Write figures as JSON, a list of numbers or texts on one line, and a page beside it.

    A kill leaves each as it was or as it is to be.
    """
    text = json.dumps(rounded(figures), indent=2)
    text = re.sub(r"\[\n\s*([^\[\]{}]+?)\n\s*\]", lambda found: "[" + re.sub(r"\s*\n\s*", " ", found[1]) + "]", text)
    write_text(path, text + "\n")
    if markdown is not None:
        write_text(path.with_suffix(".md"), markdown)
    typer.echo(f"written to {path}")


def write_text(path: Path, text: str) -> None:
    """Write a file; a kill leaves the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def rounded(value: Any) -> Any:  # noqa: ANN401  # any JSON value
    """With numbers of four digits behind the point."""
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, Mapping):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list) else value
