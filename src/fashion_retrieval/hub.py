"""Where models live: the embedded one, folders, and repositories of the Hugging Face Hub.

Downloads, the cache, tokens and offline mode are huggingface_hub's own; what is added here is the choice of files
(never a pickle, never the same weights twice) and errors that say in one line what to do.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from importlib.resources import files
from pathlib import Path

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from fashion_retrieval.errors import FashionRetrievalError, HubError, InputError, ModelNotFoundError, WeightsError

EMBEDDED = "compact"
"""Id of the model that comes with the package."""

_LIBRARY = "fashion-retrieval"
_REPO_ID = re.compile(r"(?!.*(--|\.\.))\b[\w.-]+\b/\b[\w.-]+\b", re.ASCII)
_CONFIG = "open_clip_config.json"
_OPEN_CLIP = "open_clip_model.safetensors"
_TRANSFORMERS = ("model.safetensors", "model-*-of-*.safetensors")
_LAYOUTS = ((_OPEN_CLIP, "segmenter.safetensors", "composer.safetensors"), *((name,) for name in _TRANSFORMERS))
"""File patterns of the weights, preferred layout first; the first pattern of each must match."""
_TEXTS = ("*.json", "*.txt", "README.md", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle")
_REMEDIES = {
    401: "the token is not valid, pass another as token= or run `hf auth login`",
    403: "pass the token= of an account that may read it",
    429: "too many requests, wait a few minutes or pass token=",
}


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """One line of `list_models`.

    Attributes:
        id: What `from_pretrained` takes.
        description: The architecture and what it was trained on.
        licence: SPDX identifier of the weights' licence.
        embedded: True when it comes with the package and needs no download.
        task: What the model can do.
    """

    id: str
    description: str
    licence: str
    embedded: bool = False
    task: str = "recognize, encode"


_MODELS = (
    ModelInfo(EMBEDDED, "small encoder and garment segmenter", "Apache-2.0", True, "segment, recognize, encode"),
    ModelInfo("laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "CLIP ViT-B/32 trained on LAION-2B, photos of all kinds", "MIT"),
    ModelInfo("patrickjohncyh/fashion-clip", "CLIP ViT-B/32 fine-tuned on 800,000 fashion products", "MIT"),
    ModelInfo("Marqo/marqo-fashionCLIP", "CLIP ViT-B/16 fine-tuned on a million fashion products", "Apache-2.0"),
    ModelInfo("Marqo/marqo-fashionSigLIP", "SigLIP ViT-B/16 fine-tuned on a million fashion products", "Apache-2.0"),
)


def list_models() -> tuple[ModelInfo, ...]:
    """Models known to work; any other open_clip or CLIP repository of the Hub may be named as well."""
    return _MODELS


def is_cached(model_id: str, *, cache_dir: str | Path | None = None) -> bool:
    """Whether the model can be loaded without a network."""
    try:
        resolve(model_id, cache_dir=cache_dir, local_files_only=True)
    except (ModelNotFoundError, WeightsError):
        return False
    return True


def resolve(
    id_or_path: str | Path,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
) -> Path:
    """The local folder of a model, downloaded first where it has to be.

    Args:
        id_or_path: "compact", a folder, or a Hub repository ("org/name"); a folder of that name comes first.
        revision: Branch, tag or commit of a Hub repository.
        cache_dir: Folder of the cache; by default the one all Hugging Face libraries share.
        local_files_only: Look only into the cache.
        token: Access token for gated and private repositories; by default the one that was logged in with.

    Returns:
        A folder with the configuration, the tokenizer and safetensors weights. Files that a broken connection left
        complete are kept, so the next call fetches only the others.

    Raises:
        ModelNotFoundError: No such folder, repository or revision, or not cached while offline.
        HubError: The Hub refused (gated, bad token), failed, or could not be reached.
        WeightsError: The repository has no safetensors weights.
        InputError: A revision was given for something that has none.
    """
    folder = _embedded() if id_or_path == EMBEDDED else Path(id_or_path).expanduser()
    if id_or_path != "" and folder.is_dir():
        if revision is not None:
            raise InputError(f"revision {revision!r} was given for the folder {folder}; only Hub repositories have any")
        return folder
    repo_id = _repo_id(id_or_path)
    return _from_hub(repo_id, revision, cache_dir, local_files_only, token)


def push(
    folder: str | Path,
    repo_id: str,
    *,
    token: str | bool | None = None,
    private: bool = False,
    revision: str | None = None,
    commit_message: str = "Upload with fashion-retrieval",
) -> str:
    """Upload a model folder to the Hub; the repository, and the branch, are created where they are missing.

    Args:
        folder: A folder written by `save_pretrained`; configuration, tokenizer, card and safetensors are uploaded.
        repo_id: "org/name".
        token: Access token that may write; by default the one that was logged in with.
        private: Whether a new repository is private.
        revision: Branch to commit to; the main branch by default.
        commit_message: First line of the commit.

    Returns:
        URL of the commit; its last part is the revision to pin.

    Raises:
        InputError: The folder holds no weights, or `repo_id` is not an id.
        HubError: The Hub refused, failed, or could not be reached.
    """
    folder = Path(folder).expanduser()
    if not (folder / _OPEN_CLIP).is_file():
        raise InputError(f"{folder} holds no {_OPEN_CLIP}; expected a folder written by save_pretrained")
    if not _REPO_ID.fullmatch(repo_id):
        raise InputError(f"{repo_id!r} is not a Hub id; expected 'org/name'")
    api = HfApi(token=token, library_name=_LIBRARY)
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            revision=revision,
            commit_message=commit_message,
            allow_patterns=[*_TEXTS, "*.safetensors"],
            ignore_patterns=["*/*"],
        )
    except Exception as error:  # transport errors (httpx, requests, OSError by release) share no public base
        raise _explain_push(error, repo_id) from error
    return str(commit.commit_url)


def _embedded() -> Path:
    folder = Path(str(files("fashion_retrieval").joinpath("assets", EMBEDDED)))
    if not (folder / _CONFIG).is_file():
        remedy = f"pip install --force-reinstall {_LIBRARY}"
        raise ModelNotFoundError(f"the embedded model is missing from this installation; reinstall it: {remedy}")
    return folder


def _repo_id(id_or_path: str | Path) -> str:
    if isinstance(id_or_path, str) and _REPO_ID.fullmatch(id_or_path):
        return id_or_path
    expected = f"'{EMBEDDED}', a folder that exists, or a Hub id 'org/name'"
    raise ModelNotFoundError(f"no model {str(id_or_path)!r}; expected {expected}; list_models() names some")


def _from_hub(
    repo_id: str, revision: str | None, cache_dir: str | Path | None, local_files_only: bool, token: str | bool | None
) -> Path:
    fetch = partial(
        snapshot_download,
        repo_id,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
        token=token,
        library_name=_LIBRARY,
        ignore_patterns=["*/*"],
    )
    with _explained(repo_id, revision):
        folder = Path(fetch(revision=revision, allow_patterns=list(_TEXTS)))
        names = _file_names(folder)
        if not (local_files_only or _is_complete(names)):
            names = _listed(repo_id, folder.name, token, cached=names)
        layout = _layout(names)
        if layout is None and local_files_only:
            raise _not_cached(repo_id)
        if layout is None:
            raise _no_weights(repo_id, names)
        fetch(revision=folder.name, allow_patterns=list(layout))
    return folder


def _file_names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def _is_complete(names: Collection[str]) -> bool:
    """Whether cached files already hold the layout that would be chosen from the full listing."""
    return _layout(names) is not None and (_OPEN_CLIP in names or _CONFIG not in names)


def _layout(names: Collection[str]) -> tuple[str, ...] | None:
    return next((layout for layout in _LAYOUTS if any(fnmatch(name, layout[0]) for name in names)), None)


def _listed(repo_id: str, commit: str, token: str | bool | None, *, cached: set[str]) -> set[str]:
    """Names of the repository's files; of the cached ones where they will do and the Hub does not answer."""
    try:
        info = HfApi(token=token, library_name=_LIBRARY).model_info(repo_id, revision=commit)
    except Exception:  # transport errors have no public base class; the cached files serve after any of them
        if _layout(cached) is None:
            raise
        return cached
    return {sibling.rfilename for sibling in info.siblings or ()}


def _no_weights(repo_id: str, names: Collection[str]) -> WeightsError:
    pickles = sorted(name for name in names if any(fnmatch(name, pattern) for pattern in _PICKLES))
    if not pickles:
        expected = f"{_OPEN_CLIP} or {_TRANSFORMERS[0]}"
        return WeightsError(f"{repo_id} has no weights that can be read; expected {expected}")
    found = f"{repo_id} has only pickled weights ({', '.join(pickles)}), which can run code and are never downloaded"
    remedy = f"hf download {repo_id} --local-dir DIR && python -m training.export convert DIR"
    return WeightsError(f"{found}; convert them in a clone of fashion-retrieval: {remedy}")


def _not_cached(repo_id: str) -> ModelNotFoundError:
    remedy = "load it once with a network, without local_files_only and HF_HUB_OFFLINE"
    return ModelNotFoundError(f"model {repo_id!r} is not (completely) in the cache and downloads are off; {remedy}")


@contextmanager
def _explained(repo_id: str, revision: str | None) -> Iterator[None]:
    """Turn whatever comes out of huggingface_hub into this package's errors.

    Its HTTP client, and with it the client's exceptions, differ between releases, so none of them is named.
    """
    try:
        yield
    except FashionRetrievalError:
        raise
    except Exception as error:  # transport errors (httpx, requests, OSError by release) share no public base
        raise _explain(error, repo_id, revision) from error


def _explain(error: BaseException, repo_id: str, revision: str | None) -> FashionRetrievalError:
    if isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    page = f"{constants.ENDPOINT}/{repo_id}"
    match error:
        case LocalEntryNotFoundError() | OfflineModeIsEnabled():
            return _not_cached(repo_id)
        case GatedRepoError():
            remedy = f"accept its licence at {page}, then pass token= or run `hf auth login`"
            return HubError(f"{repo_id} is gated (HTTP {error.response.status_code}); {remedy}")
        case RevisionNotFoundError():
            return ModelNotFoundError(f"{repo_id} has no revision {revision!r}; its commits are at {page}/commits/main")
        case RepositoryNotFoundError():
            return _unknown(repo_id)
        case HfHubHTTPError() if error.response.status_code == 401 and not _bad_token(error):
            return _unknown(repo_id)
        case _:
            return HubError(f"can't download {repo_id}: {_reason(error)}")


def _explain_push(error: BaseException, repo_id: str) -> HubError:
    if isinstance(error, RuntimeError) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, OfflineModeIsEnabled):
        return HubError(f"can't upload to {repo_id} while HF_HUB_OFFLINE is set; unset it")
    if isinstance(error, HfHubHTTPError) and error.response.status_code in (401, 403, 404):
        remedy = "pass a token= with write permission, or run `hf auth login`"
        return HubError(f"no permission to write to {repo_id} (HTTP {error.response.status_code}); {remedy}")
    return HubError(f"can't upload to {repo_id}: {_reason(error)}")


def _unknown(repo_id: str) -> ModelNotFoundError:
    remedy = "check the id (list_models() names some); if it is private, pass token="
    return ModelNotFoundError(f"no folder {repo_id!r} here, and no such model on the Hub that you may read; {remedy}")


def _bad_token(error: HfHubHTTPError) -> bool:
    return "Invalid credentials" in error.response.headers.get("X-Error-Message", "")


def _reason(error: BaseException) -> str:
    """What went wrong and what to do, for everything that has no error of its own."""
    match error:
        case HfHubHTTPError():
            status = error.response.status_code
            return f"the Hub answered HTTP {status}; {_REMEDIES.get(status, 'try again later')}"
        case LocalTokenNotFoundError():
            return "no token is stored on this machine; pass token='hf_…' or run `hf auth login`"
        case OSError(errno=int(), strerror=reason):
            return f"a local file failed ({reason}: {error.filename}); check disk space, permissions and cache_dir"
        case _:
            what = f"{type(error).__name__}: {error}"
            return f"{constants.ENDPOINT} did not answer as expected ({what}); check the network and call again"
