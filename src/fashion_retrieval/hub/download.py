"""Where models live: the embedded one, folders, and repositories of the Hugging Face Hub.

Downloads, the cache, tokens and offline mode are huggingface_hub's own; what is added here is the choice of files
(never a pickle, never the same weights twice) and errors that say in one line what to do.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from pathlib import Path

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import HFValidationError, LocalTokenNotFoundError, RevisionNotFoundError

from fashion_retrieval._utils.files import read_object
from fashion_retrieval._utils.hub_errors import explain_download, not_cached, translate_errors
from fashion_retrieval.checkpoint.export_manifest import NAME as EXPORT_NAME
from fashion_retrieval.checkpoint.export_manifest import RUNTIMES, Export, choose
from fashion_retrieval.checkpoint.layout import (
    OPEN_CLIP_PATTERNS,
    PICKLES,
    TEXTS,
    TRANSFORMERS_KINDS,
    TRANSFORMERS_WEIGHTS,
    file_names,
    layout_of,
    matching,
    nested_parts,
)
from fashion_retrieval.config import ENCODER_CONFIG_NAME, ENCODER_WEIGHTS_NAME
from fashion_retrieval.errors import FashionRetrievalError, WeightsError
from fashion_retrieval.hub.cache import find
from fashion_retrieval.hub.catalog import known
from fashion_retrieval.hub.find import EMBEDDED, LIBRARY, check_repo_id, resolve
from fashion_retrieval.hub.licenses import LICENSE_FILES, check_commercial

__all__ = ["EMBEDDED", "check_repo_id", "fetch", "resolve"]


def fetch(
    repo_id: str,
    revision: str | None,
    cache_dir: str | Path | None,
    local_files_only: bool,
    token: str | bool | None,
    backend: str,
    require_commercial: bool,
) -> Path:
    """`resolve` of a repository's id."""
    if require_commercial:
        check_commercial(repo_id)
    listed = known(repo_id)
    if listed and listed.state == "refused":
        raise WeightsError(f"{repo_id} can't be loaded: {listed.remedy}")
    offline = local_files_only or constants.HF_HUB_OFFLINE
    with translate_errors(partial(explain_download, repo_id=repo_id, revision=revision)):
        folder = _from_hub(repo_id, revision, cache_dir, offline, token, backend, require_commercial)
        if require_commercial:
            check_commercial(repo_id, folder)
    return folder


def _from_hub(
    repo_id: str,
    revision: str | None,
    cache_dir: str | Path | None,
    offline: bool,
    token: str | bool | None,
    backend: str,
    require_commercial: bool,
) -> Path:
    """Download, or take what is cached: offline, and where the Hub is down or the cache can't be written."""
    failure: Exception | None = None
    if not offline:
        try:
            return _download(repo_id, revision, cache_dir, token, backend, require_commercial)
        except (FashionRetrievalError, RevisionNotFoundError, HFValidationError, LocalTokenNotFoundError):
            raise
        except Exception as error:  # transport errors (httpx, httpx2, OSError by release) share no public base
            failure = error
    folder, lacking = find(repo_id, revision, cache_dir, backend)
    if folder and not lacking:
        return folder
    if failure is None:
        raise not_cached(repo_id, lacking)
    told = explain_download(failure, repo_id=repo_id, revision=revision)
    raise type(told)(f"{told}; in the cache, {lacking}" if folder else str(told)) from failure


def _download(
    repo_id: str,
    revision: str | None,
    cache_dir: str | Path | None,
    token: str | bool | None,
    backend: str,
    require_commercial: bool,
) -> Path:
    fetch = partial(snapshot_download, repo_id, cache_dir=cache_dir, token=token, library_name=LIBRARY)
    flat = partial(fetch, ignore_patterns=["*/*"])
    folder = Path(flat(revision=revision, allow_patterns=[*TEXTS, *LICENSE_FILES]))
    if require_commercial:
        check_commercial(repo_id, folder)
    names = file_names(folder)
    encoded = ENCODER_CONFIG_NAME not in names or bool(matching(names, OPEN_CLIP_PATTERNS))
    if layout_of(names) is None or not encoded:  # else the layout is that which the full listing would give
        info = HfApi(token=token, library_name=LIBRARY).model_info(repo_id, revision=folder.name)
        names = {sibling.rfilename for sibling in info.siblings or ()}
    layout, parts = layout_of(names), nested_parts(names)
    if layout is None and parts:
        patterns = [f"{part}/{name}" for part in parts for name in (*TEXTS, *TRANSFORMERS_WEIGHTS)]
        fetch(revision=folder.name, allow_patterns=patterns, ignore_patterns=["*/*/*"])
        return folder
    if layout is None:
        raise _no_weights(repo_id, names)
    if layout[0] in TRANSFORMERS_WEIGHTS:
        _refuse_code(repo_id, folder)
    flat(revision=folder.name, allow_patterns=list(layout))
    if backend in ("auto", *RUNTIMES):
        told = [f"{name}/{EXPORT_NAME}" for name in RUNTIMES if backend in ("auto", name)]
        fetch(revision=folder.name, allow_patterns=told)
        chosen = choose(folder, backend)
        exported = Export.read(folder / chosen) if chosen else None
        if exported:
            fetch(revision=folder.name, allow_patterns=[f"{chosen}/{name}" for name in exported.sha256])
    return folder


def _refuse_code(repo_id: str, folder: Path) -> None:
    """Refuse a repository whose model is Python code of its own, before its weights are downloaded."""
    path = folder / "config.json"
    settings = read_object(path, remedy="use another repository") if path.is_file() else {}
    if "auto_map" in settings and settings.get("model_type") not in TRANSFORMERS_KINDS:
        kind = (
            f"{repo_id} is a model of its own kind, {settings.get('model_type')!r}, in Python code, which is never run"
        )
        remedy = "use a repository in open_clip's layout or of transformers' CLIP or SigLIP; list_models() names some"
        raise WeightsError(f"{kind}; {remedy}")


def _no_weights(repo_id: str, names: Collection[str]) -> WeightsError:
    pickles = matching(names, PICKLES)
    if not pickles:
        expected = f"{ENCODER_WEIGHTS_NAME} or {TRANSFORMERS_WEIGHTS[0]}"
        return WeightsError(f"{repo_id} has no weights that can be read; expected {expected}")
    found = f"{repo_id} has only pickled weights ({', '.join(pickles)}), which can run code and are never downloaded"
    local = f"hf download {repo_id} --local-dir DIR && fashion-retrieval models convert DIR"
    bot = f"see whether {constants.ENDPOINT}/{repo_id}/discussions has one of SFconvertbot: revision='refs/pr/NUMBER'"
    return WeightsError(f"{found}; {bot}, or convert them: {local}")
