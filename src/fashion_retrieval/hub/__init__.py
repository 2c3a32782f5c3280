"""Models on the Hugging Face Hub, in folders and inside the package."""

from fashion_retrieval.hub.download import EMBEDDED, ModelInfo, check_repo_id, list_models, resolve
from fashion_retrieval.hub.upload import Upload, push

__all__ = ["EMBEDDED", "ModelInfo", "Upload", "check_repo_id", "list_models", "push", "resolve"]
