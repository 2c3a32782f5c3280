"""A model in the cache that all Hugging Face libraries share, without the Hub: found, and held complete.

models--org--name/refs/main                 the commit of a branch; missing where only snapshots were copied
models--org--name/snapshots/COMMIT/…        its files, often links to ../../blobs
models--org--name/blobs/….incomplete        downloads that broke off and will be continued
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable
from pathlib import Path

from huggingface_hub import constants

from fashion_retrieval.checkpoint.export_manifest import RUNTIMES, Export, choose
from fashion_retrieval.checkpoint.layout import (
    NESTED,
    OPEN_CLIP_WEIGHTS,
    TRANSFORMERS_WEIGHTS,
    layout_of,
    matching,
)
from fashion_retrieval.config import CONFIG_NAME, ENCODER_CONFIG_NAME

_TOKENIZERS = ("tokenizer*", "*.model", "vocab.*")
_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.safetensors")


def find(repo_id: str, revision: str | None, cache_dir: str | Path | None, backend: str) -> tuple[Path | None, str]:
    """A model's snapshot in the cache, None where there is none; and in words what is lacking, "" for nothing."""
    place = Path(cache_dir or constants.HF_HUB_CACHE).expanduser() / f"models--{repo_id.replace('/', '--')}"
    commits = sorted(path.name for path in (place / "snapshots").glob("*") if path.is_dir())
    ref = place / "refs" / (revision or constants.DEFAULT_REVISION)
    if revision in commits:
        wanted = [revision]
    elif ref.is_file() and ref.is_relative_to(place) and ".." not in ref.parts:
        wanted = [ref.read_text(encoding="utf-8").strip()]
    elif revision in (None, constants.DEFAULT_REVISION) and not any((place / "refs").glob("*")):
        wanted = commits  # the refs were not copied: a single snapshot can only be the one that is meant
    else:
        beginning = revision if re.fullmatch("[0-9a-f]{7,}", revision or "") else None
        wanted = [name for name in commits if beginning and name.startswith(beginning)]
    if len(wanted) != 1 or wanted[0] not in commits:
        there = f"; revision= may be one of {', '.join(commits)}" if commits else ""
        return None, f"no snapshot of {revision or 'main'} is in {place}{there}"
    folder = place / "snapshots" / wanted[0]
    lacking = _lacking(folder) or _lacking_graphs(folder, backend)
    unfinished = len(list((place / "blobs").glob("*.incomplete")))
    told = f" ({unfinished} unfinished download(s))" if unfinished else ""
    return folder, f"{folder} lacks {', '.join(lacking)}{told}" if lacking else ""


def _lacking(folder: Path) -> list[str]:
    """Names of files that a snapshot needs and has not."""
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}  # no dangling links
    own = _object(folder / CONFIG_NAME).get("sha256")
    if CONFIG_NAME in names and isinstance(own, dict):
        return sorted(name for name in own if name not in names)
    begun = next((parts for parts in NESTED if any(name.startswith(f"{parts[0]}/") for name in names)), None)
    if layout_of(names) is None and begun and not {ENCODER_CONFIG_NAME, "config.json"} & names:
        return [f"{part}/{name}" for part in begun[:2] for name in _lacking_of(folder / part, _within(part, names))]
    return _lacking_of(folder, {name for name in names if "/" not in name})


def _lacking_of(folder: Path, names: Collection[str]) -> list[str]:
    """The same for one encoder's folder, or that of both, whose files these are."""
    settings = [name for name in (ENCODER_CONFIG_NAME, "config.json") if name in names]
    if not settings:
        return [f"{ENCODER_CONFIG_NAME} or config.json"]
    usual = OPEN_CLIP_WEIGHTS if settings[0] == ENCODER_CONFIG_NAME else TRANSFORMERS_WEIGHTS[:1]
    indexed = [name for name in usual if f"{name}.index.json" in names]
    first = (layout_of(names) or indexed or usual)[0]
    wanted = {first}
    if first not in names:
        told = _object(folder / f"{first.replace('-*-of-*', '')}.index.json").get("weight_map")
        wanted = set(told.values()) if isinstance(told, dict) else _shards(matching(names, [first])) or wanted
    model = _object(folder / ENCODER_CONFIG_NAME).get("model_cfg")
    text = model.get("text_cfg") if isinstance(model, dict) else None
    if isinstance(text, dict) and text.get("hf_tokenizer_name") and not matching(names, _TOKENIZERS):
        wanted.add("tokenizer.json")
    return sorted(str(name) for name in wanted if name not in names)


def _shards(names: Iterable[str]) -> set[str]:
    """All shards of the file that some shards belong to."""
    parts = [found for name in names if (found := _SHARD.fullmatch(name))]
    return {f"{p[1]}-{n:05}-of-{p[3]}.safetensors" for p in parts for n in range(1, int(p[3]) + 1)}


def _lacking_graphs(folder: Path, backend: str) -> list[str]:
    """Names of an exported model's files that are not there; "auto" does without one of which nothing is there."""
    chosen = choose(folder, backend, fetched=True) if backend in ("auto", *RUNTIMES) else None
    exported = Export.read(folder / chosen) if chosen else None
    graphs = [f"{chosen}/{name}" for name in sorted(exported.sha256)] if exported else []
    return [name for name in graphs if not (folder / name).is_file()]


def _within(part: str, names: Iterable[str]) -> set[str]:
    return {name.removeprefix(f"{part}/") for name in names if name.startswith(f"{part}/")}


def _object(path: Path) -> dict[str, object]:
    """The JSON object that a file holds; an empty one where there is none, whose faults the loading tells."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
