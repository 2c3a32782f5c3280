"""Where models live: the embedded one, folders, and repositories of the Hugging Face Hub.

Downloads, the cache, tokens and offline mode are huggingface_hub's own; what is added here is the choice of files
(never a pickle, never the same weights twice) and errors that say in one line what to do.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path

from huggingface_hub import HfApi, constants, snapshot_download

from fashion_retrieval._utils.deprecation import renamed_attribute
from fashion_retrieval._utils.hub_errors import explain_download, not_cached, translate_errors
from fashion_retrieval.checkpoint.export_manifest import NAME as EXPORT_NAME
from fashion_retrieval.checkpoint.export_manifest import RUNTIMES, Export, choose
from fashion_retrieval.checkpoint.layout import (
    OPEN_CLIP_PATTERNS,
    PICKLES,
    TEXTS,
    TRANSFORMERS_WEIGHTS,
    file_names,
    layout_of,
    matching,
    nested_names,
    nested_parts,
)
from fashion_retrieval.config import ENCODER_CONFIG_NAME, ENCODER_WEIGHTS_NAME
from fashion_retrieval.errors import InputError, ModelNotFoundError, WeightsError

EMBEDDED = "compact"
"""Id of the model that comes with the package."""

LIBRARY = "fashion-retrieval"
_REPO_ID = re.compile(r"(?!.*(--|\.\.))\b[\w.-]+\b/\b[\w.-]+\b", re.ASCII)


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """One line of `list_models`.

    Attributes:
        id: What `from_pretrained` takes.
        description: The architecture and what it was trained on.
        license: SPDX identifier of the weights' license.
        embedded: True when it comes with the package and needs no download.
        task: What the model can do.
    """

    id: str
    description: str
    license: str
    embedded: bool = False
    task: str = "recognize, encode"

    licence = renamed_attribute("licence", "license")


_MODELS = (
    ModelInfo(
        EMBEDDED, "small encoder and garment segmenter", "Apache-2.0", True, "segment, recognize, encode, compose"
    ),
    ModelInfo("laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "CLIP ViT-B/32 trained on LAION-2B, photos of all kinds", "MIT"),
    ModelInfo("patrickjohncyh/fashion-clip", "CLIP ViT-B/32 fine-tuned on 800,000 fashion products", "MIT"),
    ModelInfo("Marqo/marqo-fashionCLIP", "CLIP ViT-B/16 fine-tuned on a million fashion products", "Apache-2.0"),
    ModelInfo("Marqo/marqo-fashionSigLIP", "SigLIP ViT-B/16 fine-tuned on a million fashion products", "Apache-2.0"),
)


def list_models() -> tuple[ModelInfo, ...]:
    """The embedded model, and repositories of the Hub in a layout that `resolve` takes.

    The tests load the embedded model only, the others are not downloaded. Any other open_clip or CLIP repository may be
    named as well.
    """
    return _MODELS


def resolve(
    id_or_path: str | Path,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
    backend: str = "torch",
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

    Returns:
        A folder with the configuration, the tokenizer and safetensors weights. Files that a broken connection left
        complete are kept, so the next call fetches only the others.

    Raises:
        ModelNotFoundError: No such folder, repository or revision, or not cached while offline.
        HubError: The Hub refused (gated, bad token), failed, or could not be reached.
        WeightsError: The repository has no safetensors weights.
        InputError: A revision was given for something that has none.
        ConfigError: The repository's exported model is described with faults.
    """
    folder = Path(id_or_path).expanduser()
    if id_or_path == EMBEDDED:
        folder = Path(str(files("fashion_retrieval").joinpath("assets", EMBEDDED)))
        if not (folder / ENCODER_CONFIG_NAME).is_file():
            remedy = f"pip install --force-reinstall {LIBRARY}"
            raise ModelNotFoundError(f"the embedded model is missing from this installation; reinstall it: {remedy}")
    if id_or_path != "" and folder.is_dir():
        if revision is not None:
            raise InputError(f"revision {revision!r} was given for the folder {folder}; only Hub repositories have any")
        return folder
    if not isinstance(id_or_path, str) or not _REPO_ID.fullmatch(id_or_path):
        expected = f"'{EMBEDDED}', a folder that exists, or a Hub id 'org/name'"
        raise ModelNotFoundError(f"no model {str(id_or_path)!r}; expected {expected}; list_models() names some")
    return _from_hub(id_or_path, revision, cache_dir, local_files_only, token, backend)


def check_repo_id(repo_id: str) -> None:
    """Raise an InputError for what is no "org/name"."""
    if not _REPO_ID.fullmatch(repo_id):
        raise InputError(f"{repo_id!r} is not a Hub id; expected 'org/name'")


def _from_hub(
    repo_id: str,
    revision: str | None,
    cache_dir: str | Path | None,
    local_files_only: bool,
    token: str | bool | None,
    backend: str,
) -> Path:
    fetch = partial(
        snapshot_download,
        repo_id,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
        token=token,
        library_name=LIBRARY,
        ignore_patterns=["*/*"],
    )
    with translate_errors(partial(explain_download, repo_id=repo_id, revision=revision)):
        folder = Path(fetch(revision=revision, allow_patterns=list(TEXTS)))
        names = file_names(folder)
        encoded = ENCODER_CONFIG_NAME not in names or bool(matching(names, OPEN_CLIP_PATTERNS))
        complete = layout_of(names) is not None and encoded  # the layout that the full listing would give
        if not (local_files_only or complete):
            names = _listed(repo_id, folder.name, token, cached=names)
        layout, parts = layout_of(names), nested_parts(names | nested_names(folder))
        if layout is None and parts:
            patterns = [f"{part}/{name}" for part in parts for name in (*TEXTS, *TRANSFORMERS_WEIGHTS)]
            fetch(revision=folder.name, allow_patterns=patterns, ignore_patterns=["*/*/*"])
            return folder
        if layout is None:
            raise not_cached(repo_id) if local_files_only else _no_weights(repo_id, names)
        fetch(revision=folder.name, allow_patterns=list(layout))
        if backend in ("auto", *RUNTIMES):
            of_export = partial(fetch, revision=folder.name, ignore_patterns=None)
            of_export(allow_patterns=[f"{name}/{EXPORT_NAME}" for name in RUNTIMES if backend in ("auto", name)])
            chosen = choose(folder, backend)
            exported = Export.read(folder / chosen) if chosen else None
            if exported:
                of_export(allow_patterns=[f"{chosen}/{name}" for name in exported.sha256])
    return folder


def _listed(repo_id: str, commit: str, token: str | bool | None, *, cached: set[str]) -> set[str]:
    """Names of the repository's files; of the cached ones where they will do and the Hub does not answer."""
    try:
        info = HfApi(token=token, library_name=LIBRARY).model_info(repo_id, revision=commit)
    except Exception:  # transport errors have no public base class; the cached files serve after any of them
        if layout_of(cached) is None:
            raise
        return cached
    return {sibling.rfilename for sibling in info.siblings or ()}


def _no_weights(repo_id: str, names: Collection[str]) -> WeightsError:
    pickles = matching(names, PICKLES)
    if not pickles:
        expected = f"{ENCODER_WEIGHTS_NAME} or {TRANSFORMERS_WEIGHTS[0]}"
        return WeightsError(f"{repo_id} has no weights that can be read; expected {expected}")
    found = f"{repo_id} has only pickled weights ({', '.join(pickles)}), which can run code and are never downloaded"
    local = f"hf download {repo_id} --local-dir DIR && fashion-retrieval models convert DIR"
    bot = f"see whether {constants.ENDPOINT}/{repo_id}/discussions has one of SFconvertbot: revision='refs/pr/NUMBER'"
    return WeightsError(f"{found}; {bot}, or convert them: {local}")
