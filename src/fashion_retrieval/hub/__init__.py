"""Models on the Hugging Face Hub, in folders and inside the package; huggingface_hub comes when one is of the Hub."""

from typing import TYPE_CHECKING

from fashion_retrieval._utils.lazy import lazy_names
from fashion_retrieval.hub.find import EMBEDDED, check_repo_id, resolve

if TYPE_CHECKING:
    from fashion_retrieval.hub.catalog import ModelInfo, PublishedFigure, list_models
    from fashion_retrieval.hub.upload import Upload, push

__all__ = [
    "EMBEDDED",
    "ModelInfo",
    "PublishedFigure",
    "Upload",
    "check_repo_id",
    "list_models",
    "push",
    "resolve",
]

__getattr__ = lazy_names(
    __name__,
    {
        "ModelInfo": "hub.catalog:ModelInfo",
        "PublishedFigure": "hub.catalog:PublishedFigure",
        "Upload": "hub.upload:Upload",
        "list_models": "hub.catalog:list_models",
        "push": "hub.upload:push",
    },
)
