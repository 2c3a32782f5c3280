"""Results files: JSON with what the metrics can be traced to, and a Markdown page beside it."""

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
from fashion_retrieval._utils.files import sha256, write_atomically
from fashion_retrieval.errors import InputError
from fashion_retrieval.hub.download import EMBEDDED, resolve

RESULTS = Path(__file__).parents[1] / "results"


def provenance(model: FashionModel, id_or_path: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """What metrics can be traced to: model, SHA-256 of its weights, settings, versions, commit."""
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
    """Versions of this package, torch and Python."""
    return {"fashion_retrieval": __version__, "torch": torch.__version__, "python": platform.python_version()}


def _commit() -> str | None:
    """The commit of this file's repository, ending in "-dirty" if files differ from it; None outside a repository."""
    describe = ["git", "--no-optional-locks", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        folder = Path(__file__).parent
        ran = subprocess.run(describe, cwd=folder, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return None
    return ran.stdout.strip() or None


def destination(folder: Path, kind: str, *more: str, models: Sequence[str], split: str) -> Path:
    """The JSON file of a measurement: `kind`, `more`, the models unless it is the embedded one alone, and the split."""
    names = [] if [*models] == [EMBEDDED] else [Path(model).name for model in models]
    return folder / ("_".join(word for word in (kind, *more, *names, split) if word) + ".json")


def check_output(path: Path) -> None:
    """Refuse a place that can't be written to, before anything is measured.

    Raises:
        InputError: It is a folder, its name does not end in .json, or its folder can't be made.
    """
    if path.is_dir() or path.suffix != ".json":
        raise InputError(f"--output must be a .json file (a .md file is written beside it), got {path}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--output {path} can't be written ({error.strerror}); choose another place") from None


def write_results(results: Mapping[str, Any], path: Path, markdown: str | None = None) -> None:
    """Write results as JSON, a list of numbers or texts on one line, and a page beside it, each atomically."""
    text = json.dumps(rounded(results), indent=2)
    text = re.sub(r"\[\n\s*([^\[\]{}]+?)\n\s*\]", lambda found: "[" + re.sub(r"\s*\n\s*", " ", found[1]) + "]", text)
    write_text(path, text + "\n")
    if markdown is not None:
        write_text(path.with_suffix(".md"), markdown)
    typer.echo(f"written to {path}")


def write_text(path: Path, text: str) -> None:
    """Write a file atomically; missing folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path) as partial:
        partial.write_text(text, encoding="utf-8")


def rounded(value: Any) -> Any:  # noqa: ANN401  # any JSON value
    """Round every number in a JSON value to four decimals."""
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, Mapping):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list) else value


def words(key: str) -> str:
    """A key of a results file as words."""
    return key.replace("_", " ")
