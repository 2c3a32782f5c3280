"""Upload of a model folder to the Hugging Face Hub, in one commit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi, constants

from fashion_retrieval._utils.hub_errors import explain_upload, translate_errors
from fashion_retrieval.checkpoint.layout import UploadFile, published_files
from fashion_retrieval.errors import InputError
from fashion_retrieval.hub.find import LIBRARY, check_repo_id


@dataclass(frozen=True, slots=True)
class Upload:
    """What `push` sends, in one commit.

    Attributes:
        repo_id: "org/name".
        revision: The branch.
        private: Whether the repository is made private, where it does not exist yet.
        commit_message: First line of the commit.
        files: Sorted by name.
        url: Address of the commit, whose last part is the revision to pin; None where nothing was sent.
    """

    repo_id: str
    revision: str
    private: bool
    commit_message: str
    files: tuple[UploadFile, ...]
    url: str | None = None

    def __str__(self) -> str:
        state = f"sent: {self.url}" if self.url else "not sent"
        target = f"{constants.ENDPOINT}/{self.repo_id}, branch {self.revision}"
        lines = [f"{target}{', private if new' if self.private else ''}: {self.commit_message!r} ({state})"]
        for file in self.files:
            lines.append(f"{'LFS' if file.lfs else 'regular':8}{file.size:>13,}  {file.sha256}  {file.name}")
        return "\n".join([*lines, f"{len(self.files)} files, {sum(file.size for file in self.files):,} bytes"])


def push(
    folder: str | Path,
    repo_id: str,
    *,
    token: str | bool | None = None,
    private: bool = False,
    revision: str | None = None,
    commit_message: str = "Upload with fashion-retrieval",
    dry_run: bool = False,
) -> Upload:
    """Upload a model folder to the Hub in one commit; the repository, and the branch, are made where they are missing.

    A broken upload commits nothing; the next one sends only the large files that have not arrived yet.

    Args:
        folder: A folder written by `save_pretrained`; configuration, tokenizer, card and safetensors are uploaded.
        repo_id: "org/name".
        token: Access token that may write; by default the one that was logged in with.
        private: Whether a new repository is private.
        revision: Branch to commit to; the main branch by default.
        commit_message: First line of the commit.
        dry_run: Only tell what would be sent; the network is not used.

    Raises:
        InputError: The folder holds no weights, or `repo_id` is not an id.
        ConfigError: The folder's configuration has a fault.
        WeightsError: A file is missing, or is not the one that its configuration was written for.
        HubError: The Hub refused, failed, or could not be reached.
    """
    folder = Path(folder).expanduser()
    check_repo_id(repo_id)
    if not commit_message.strip():
        raise InputError("commit_message must not be empty; say what the upload is")
    upload = Upload(repo_id, revision or constants.DEFAULT_REVISION, private, commit_message, published_files(folder))
    if dry_run:
        return upload
    api = HfApi(token=token, library_name=LIBRARY)
    with translate_errors(partial(explain_upload, repo_id=repo_id)):
        api.create_repo(repo_id, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        commit = api.create_commit(
            repo_id,
            [CommitOperationAdd(file.name, folder / file.name) for file in upload.files],
            commit_message=commit_message,
            revision=revision,
        )
    return replace(upload, url=str(commit.commit_url))
