"""Where models live: the embedded one, folders, and repositories of the Hugging Face Hub.

Downloads, the cache, tokens and offline mode are huggingface_hub's own; what is added here is the choice of files
(never a pickle, never the same weights twice) and errors that say in one line what to do.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import partial
from importlib.resources import files
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
from fashion_retrieval.errors import FashionRetrievalError, InputError, ModelNotFoundError, WeightsError
from fashion_retrieval.hub.cache import find
from fashion_retrieval.hub.catalog import known
from fashion_retrieval.hub.licenses import LICENSE_FILES, check_commercial

EMBEDDED = "compact"
"""Id of the model that comes with the package."""

LIBRARY = "fashion-retrieval"
_REPO_ID = re.compile(r"(?!.*(--|\.\.))\b[\w.-]+\b/\b[\w.-]+\b", re.ASCII)


def resolve(
    id_or_path: str | Path,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
    backend: str = "torch",
    require_commercial: bool = False,
) -> Path:
    """The local folder of a model, downloaded first where it has to be.

    Args:
        id_or_path: "compact", a folder, or a Hub repository ("org/name"); a folder of that name comes first.
        revision: Branch, tag or commit of a Hub repository.
        cache_dir: Folder of the cache; by default the one all Hugging Face libraries share.
        local_files_only: Look only into the cache.
        token: Access token for gated and private repositories; by default the one that was logged in with.
        backend: Download the repository's exported model too, where it has one: "openvino", "onnx", or "auto" for the
            first that passed the accuracy check and whose runtime is installed.
        require_commercial: Refuse a model whose license forbids commercial use or does not clearly allow it, before its
            weights are downloaded.

    Returns:
        A folder with the configuration, the tokenizer and safetensors weights. Files that a broken connection left
        complete are kept, so the next call fetches only the others.

    Raises:
        ModelNotFoundError: No such folder, repository or revision, or not cached while offline.
        HubError: The Hub refused (gated, bad token), failed, or could not be reached.
        WeightsError: The repository has no safetensors weights, or needs code of its own.
        InputError: A revision was given for something that has none, or an argument can't be used.
        ConfigError: The repository's exported model is described with faults.
        UnsupportedError: The license, with `require_commercial`.
    """
    if not isinstance(require_commercial, bool):
        raise InputError(f"require_commercial must be True or False, got {require_commercial!r}")
    folder = Path(id_or_path).expanduser()
    if id_or_path == EMBEDDED:
        folder = Path(str(files("fashion_retrieval").joinpath("assets", EMBEDDED)))
        if not (folder / ENCODER_CONFIG_NAME).is_file():
            remedy = f"pip install --force-reinstall {LIBRARY}"
            raise ModelNotFoundError(f"the embedded model is missing from this installation; reinstall it: {remedy}")
    if id_or_path != "" and folder.is_dir():
        if revision is not None:
            raise InputError(f"revision {revision!r} was given for the folder {folder}; only Hub repositories have any")
        if require_commercial:
            check_commercial(EMBEDDED if id_or_path == EMBEDDED else folder, folder)
        return folder
    if not isinstance(id_or_path, str) or not _REPO_ID.fullmatch(id_or_path):
        expected = f"'{EMBEDDED}', a folder that exists, or a Hub id 'org/name'"
        raise ModelNotFoundError(f"no model {str(id_or_path)!r}; expected {expected}; list_models() names some")
    if require_commercial:
        check_commercial(id_or_path)
    listed = known(id_or_path)
    if listed and listed.state == "refused":
        raise WeightsError(f"{id_or_path} can't be loaded: {listed.remedy}")
    offline = local_files_only or constants.HF_HUB_OFFLINE
    with translate_errors(partial(explain_download, repo_id=id_or_path, revision=revision)):
        folder = _from_hub(id_or_path, revision, cache_dir, offline, token, backend, require_commercial)
        if require_commercial:
            check_commercial(id_or_path, folder)
    return folder


def check_repo_id(repo_id: str) -> None:
    """Raise an InputError for what is no "org/name"."""
    if not _REPO_ID.fullmatch(repo_id):
        raise InputError(f"{repo_id!r} is not a Hub id; expected 'org/name'")


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
