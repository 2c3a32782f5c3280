"""The models that are known by name: `assets/hub/models.json`, and what may be done with them.

Everything in the file was looked up, and says where; what was not found is left out, which reads as None.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import Annotated

from pydantic import Field, with_config

from fashion_retrieval._utils.deprecation import renamed_attribute
from fashion_retrieval._utils.files import asset
from fashion_retrieval._utils.validation import STRICT, Text, one_of, validate
from fashion_retrieval.config import Count
from fashion_retrieval.errors import ConfigError

STATES = ("listed", "layout tested", "downloaded and tested", "refused")
_Commit = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$", description="40 lower-case hex digits")]


@with_config(STRICT)
@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedFigure:
    """A figure that others published; this project did not measure it."""

    value: float
    metric: Text
    data: Text
    protocol: Text  # the task, and who measured
    source: Text  # an address

    def __str__(self) -> str:
        return f"{self.metric} {self.value:g} on {self.data} ({self.protocol}): {self.source}"


@with_config(STRICT)
@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """One line of `list_models`; None is unknown.

    Attributes:
        id: What `from_pretrained` takes.
        description: The architecture and what it was trained on.
        task: What the model can do.
        license: The weights' license: its SPDX identifier, or the Hub's name where SPDX has none.
        commercial: Whether that license allows commercial use: "yes", "no" or "unclear".
        reason: Why, in one line.
        state: "listed" (never tried), "layout tested" (the tests load a small random model from a repository with
            these files; the weights were never downloaded), "downloaded and tested", or "refused".
        remedy: What to do about a refused one.
        layout: "fashion-retrieval", "open_clip" or "transformers", or why it is none of them.
        revision: A commit to pin, `from_pretrained(id, revision=revision)`; None where none was found.
        parameters: Of both encoders.
        megabytes: Size of the weights that are downloaded, in 10^6 bytes.
        embedding_dim: Numbers in an embedding.
        image_size: (height, width) in pixels.
        embedded: True when it comes with the package and needs no download.
        figures: What others measured.
        sources: Where the rest was looked up.
    """

    id: Text
    description: Text
    task: Text = "recognize, encode"
    license: Text
    commercial: Annotated[str, one_of(("yes", "no", "unclear"))]
    reason: Text
    state: Annotated[str, one_of(STATES)]
    remedy: str = ""
    layout: Text
    revision: _Commit | None = None
    parameters: Count | None = None
    megabytes: Count | None = None
    embedding_dim: Count | None = None
    image_size: tuple[Count, Count] | None = None
    embedded: bool = False
    figures: tuple[PublishedFigure, ...] = ()
    sources: tuple[Text, ...] = ()

    licence = renamed_attribute("licence", "license")


@with_config(STRICT)
@dataclass(frozen=True, slots=True, kw_only=True)
class _Catalog:
    models: tuple[ModelInfo, ...]


@cache
def list_models() -> tuple[ModelInfo, ...]:
    """The embedded model, and models of others that one might choose for photos of clothes.

    Any other repository in a layout that `resolve` takes may be named as well. `state` says what of it was tried here.
    """
    return validate(_Catalog, json.loads(asset("hub/models.json")), "hub/models.json", ConfigError).models


def known(model_id: object) -> ModelInfo | None:
    """The list's entry of an id; None where it is not listed."""
    return next((model for model in list_models() if model.id == model_id), None)
