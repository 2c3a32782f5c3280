"""What a model's license says of commercial use, as far as a program can tell; it is no legal advice."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import metadata_load

from fashion_retrieval._utils.files import asset
from fashion_retrieval.config import ModelConfig
from fashion_retrieval.errors import UnsupportedError
from fashion_retrieval.hub.catalog import known

LICENSE_FILES = ("LICENSE*", "LICENCE*", "License*", "license*")
_FORBIDDING_NAME = re.compile(r"\b(nc|amlr)\b|non[\W_]?commercial|research", re.IGNORECASE)
_FORBIDDING_TEXT = re.compile(
    r"non[\W_]?commercial\b(?!\s+distribution\s+and)|research purposes|commons clause",  # but for GPL 2's section 3
    re.IGNORECASE,
)


def check_commercial(model_id: object, folder: Path | None = None) -> None:
    """Raise an UnsupportedError for a model whose license forbids commercial use or does not clearly allow it.

    The folder's configuration, the head of its README.md and its LICENSE are read. None may forbid it. The list allows
    it for the models in it; of others all licenses that are named must, or a LICENSE where none is named but "other".
    Without a folder, models that are not listed pass.
    """
    listed = known(model_id)
    if listed and listed.commercial != "yes":
        raise _refusal(model_id, listed.reason)
    if folder is None:
        return
    verdicts = list(_verdicts(folder))
    forbidding = next((told for verdict, told in verdicts if verdict == "no"), None)
    if forbidding:
        raise _refusal(model_id, f"{forbidding} forbids it")
    found = {verdict for verdict, _ in verdicts}
    if not listed and ("unclear" in found or "yes" not in found):
        unclear = "; ".join(told for verdict, told in verdicts if verdict != "yes")
        told = unclear or "neither README.md nor LICENSE names a license"
        raise _refusal(model_id, f"{told}: that does not clearly allow it")


def _refusal(model_id: object, reason: str) -> UnsupportedError:
    remedy = "take another (list_models()), or read its license and load it without require_commercial"
    return UnsupportedError(f"{model_id} is refused for commercial use: {reason}; {remedy}")


def _verdicts(folder: Path) -> Iterator[tuple[str, str]]:
    """("yes", "no", "unclear", or "silent" where others decide; what says so) of all in a folder that may tell."""
    config = ModelConfig.read(folder)
    if config and config.license != "unknown":
        yield _judged([config.license]), f"license {config.license!r} of its configuration"
    names = _of_card(folder / "README.md")
    if names:
        verdict = "silent" if names == ["other"] else _judged(names)
        yield verdict, f"license {', '.join(map(repr, names))} of its README.md"
    titles = "|".join(map(re.escape, json.loads(asset("hub/licenses.json"))["titles"]))
    for path in sorted(path for pattern in LICENSE_FILES for path in folder.glob(pattern) if path.is_file()):
        text = path.read_text(encoding="utf-8", errors="replace")
        titled = re.search(rf"^\W*(the )?({titles})", text[:300], re.IGNORECASE | re.MULTILINE)
        yield ("no" if _FORBIDDING_TEXT.search(text) else "yes" if titled else "silent"), f"its {path.name}"


def _judged(names: list[str]) -> str:
    allowing = json.loads(asset("hub/licenses.json"))["commercial"]
    if any(_FORBIDDING_NAME.search(name) for name in names):
        return "no"
    return "yes" if all(name.lower() in allowing for name in names) else "unclear"


def _of_card(path: Path) -> list[str]:
    """The names of licenses in the front matter of a README.md; none where it has none or can't be read."""
    try:
        metadata: dict[str, Any] = (metadata_load(path) if path.is_file() else None) or {}
    except (ValueError, yaml.YAMLError):  # no mapping, no YAML, no UTF-8
        return []
    told = [metadata.get("license"), metadata.get("license_name")]
    return [name for item in told for name in (item if isinstance(item, list) else [item]) if isinstance(name, str)]
