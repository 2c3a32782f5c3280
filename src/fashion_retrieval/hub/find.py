"""Where a model lies: inside the package, in a folder, or on the Hub, whose library is imported only for that."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

from fashion_retrieval.config import ENCODER_CONFIG_NAME
from fashion_retrieval.errors import InputError, ModelNotFoundError

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
            from fashion_retrieval.hub.licenses import check_commercial

            check_commercial(EMBEDDED if id_or_path == EMBEDDED else folder, folder)
        return folder
    if not isinstance(id_or_path, str) or not _REPO_ID.fullmatch(id_or_path):
        expected = f"'{EMBEDDED}', a folder that exists, or a Hub id 'org/name'"
        raise ModelNotFoundError(f"no model {str(id_or_path)!r}; expected {expected}; list_models() names some")
    from fashion_retrieval.hub.download import fetch  # brings huggingface_hub

    return fetch(id_or_path, revision, cache_dir, local_files_only, token, backend, require_commercial)


def check_repo_id(repo_id: str) -> None:
    """Raise an InputError for what is no "org/name"."""
    if not _REPO_ID.fullmatch(repo_id):
        raise InputError(f"{repo_id!r} is not a Hub id; expected 'org/name'")
