"""Errors of huggingface_hub become this package's: one line each, with a remedy.

Its HTTP client, and with it the client's exceptions, differ between releases, so none of them is named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from huggingface_hub import constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from fashion_retrieval.errors import FashionRetrievalError, HubError, ModelNotFoundError

_READ_REMEDIES = {
    401: "the token is not valid, pass another as token= or run `hf auth login`",
    403: "pass the token= of an account that may read it",
    429: "too many requests, wait a few minutes or pass token=",
}


@contextmanager
def translate_errors(explain: Callable[[BaseException], FashionRetrievalError]) -> Iterator[None]:
    """Raise what `explain` makes of an error that is not this package's own."""
    try:
        yield
    except FashionRetrievalError:
        raise
    except Exception as error:  # transport errors (httpx, requests, OSError by release) share no public base
        raise explain(error) from error


def explain_download(
    error: BaseException, repo_id: str, revision: str | None, *, examples: str = "list_models() names some"
) -> FashionRetrievalError:
    """The error to raise for one that came up while downloading; `examples` says where to find ids that exist."""
    if isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    page = f"{constants.ENDPOINT}/{repo_id}"
    match error:
        case LocalEntryNotFoundError() | OfflineModeIsEnabled():
            return not_cached(repo_id)
        case GatedRepoError():
            remedy = f"accept its license at {page}, then pass token= or run `hf auth login`"
            return HubError(f"{repo_id} is gated (HTTP {error.response.status_code}); {remedy}")
        case RevisionNotFoundError():
            return ModelNotFoundError(f"{repo_id} has no revision {revision!r}; its commits are at {page}/commits/main")
        case HfHubHTTPError() if isinstance(error, RepositoryNotFoundError) or _lacks_token(error):
            remedy = f"check the id ({examples}); if it is private, pass token="
            found = f"no folder {repo_id!r} here, and no such model on the Hub that you may read"
            return ModelNotFoundError(f"{found}; {remedy}")
        case EntryNotFoundError():
            return ModelNotFoundError(f"{repo_id} lacks a file of such a model; {examples}")
        case HFValidationError():
            return ModelNotFoundError(f"{repo_id!r} is neither a folder here nor a Hub id 'org/name'; {examples}")
        case _:
            return HubError(f"can't download {repo_id}: {_reason(error)}")


def explain_upload(error: BaseException, repo_id: str) -> HubError:
    """The error to raise for one that came up while uploading."""
    if isinstance(error, RuntimeError) and error.__cause__ is not None:
        error = error.__cause__
    owner = repo_id.partition("/")[0]
    match error:
        case OfflineModeIsEnabled():
            return HubError(f"can't upload to {repo_id} while HF_HUB_OFFLINE is set; unset it")
        case HfHubHTTPError() if error.response.status_code == 401:
            why = "no token" if _lacks_token(error) else "the token is not valid"
            remedy = "pass a token= with write permission, or run `hf auth login`"
            return HubError(f"no permission to write to {repo_id} (HTTP 401, {why}); {remedy}")
        case HfHubHTTPError() if error.response.status_code in (403, 404):
            remedy = f"pass a token= that may write for {owner!r}, or name a repository of your own"
            return HubError(f"no permission to write to {repo_id} (HTTP {error.response.status_code}); {remedy}")
        case ValueError() if "README.md" in str(error):
            return HubError(f"the Hub refused the model card of {repo_id} ({error}); correct its metadata")
        case _:
            return HubError(f"can't upload to {repo_id}: {_reason(error)}")


def not_cached(repo_id: str, lacking: str = "") -> ModelNotFoundError:
    """A model that is not here while downloads are off; `lacking` says what of it."""
    told = f"model {repo_id!r} is not (completely) in the cache and downloads are off"
    remedy = "load it once with a network, without local_files_only and HF_HUB_OFFLINE"
    return ModelNotFoundError("; ".join(filter(None, (told, lacking, remedy))))


def _lacks_token(error: HfHubHTTPError) -> bool:
    invalid = "Invalid credentials" in error.response.headers.get("X-Error-Message", "")
    return bool(error.response.status_code == 401 and not invalid)


def _reason(error: BaseException) -> str:
    """What went wrong and what to do, for everything that has no error of its own."""
    match error:
        case HfHubHTTPError():
            status = error.response.status_code
            return f"the Hub answered HTTP {status}; {_READ_REMEDIES.get(status, 'try again later')}"
        case LocalTokenNotFoundError():
            return "no token is stored on this machine; pass token='hf_…' or run `hf auth login`"
        case OSError(errno=int(), strerror=reason):
            return f"a local file failed ({reason}: {error.filename}); check disk space, permissions and cache_dir"
        case _:
            what = f"{type(error).__name__}: {error}"
            return f"{constants.ENDPOINT} did not answer as expected ({what}); check the network and call again"
