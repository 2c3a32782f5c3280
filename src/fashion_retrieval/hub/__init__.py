"""Models on the Hugging Face Hub, in folders and inside the package."""

from fashion_retrieval.hub.catalog import ModelInfo, PublishedFigure, list_models
from fashion_retrieval.hub.download import EMBEDDED, check_repo_id, resolve
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
