"""Garment regions, categories, attributes and color of a photo, behind one call.

Names are loaded on first use, so that importing the package costs nothing: torch comes with the first model.
"""

from importlib.metadata import version
from typing import TYPE_CHECKING

from fashion_retrieval._utils.deprecation import alias_module
from fashion_retrieval._utils.lazy import lazy_names

if TYPE_CHECKING:
    from fashion_retrieval.diagnostics import doctor
    from fashion_retrieval.errors import FashionRetrievalError
    from fashion_retrieval.gallery import Gallery, Refinement
    from fashion_retrieval.hub.catalog import list_models
    from fashion_retrieval.hub.download import resolve as download_model
    from fashion_retrieval.model import FashionModel
    from fashion_retrieval.models.sam import SegmentAnythingSegmenter
    from fashion_retrieval.results import Failure, Garment, Match, Recognition, Reference, to_coco, to_yolo
    from fashion_retrieval.taxonomy import Taxonomy

__all__ = [
    "Failure",
    "FashionModel",
    "FashionRetrievalError",
    "Gallery",
    "Garment",
    "Match",
    "Recognition",
    "Reference",
    "Refinement",
    "SegmentAnythingSegmenter",
    "Taxonomy",
    "__version__",
    "doctor",
    "download_model",
    "list_models",
    "to_coco",
    "to_yolo",
]

__version__ = version("fashion-retrieval")

__getattr__ = lazy_names(
    __name__,
    {
        "Failure": "results:Failure",
        "FashionModel": "model:FashionModel",
        "FashionRetrievalError": "errors:FashionRetrievalError",
        "Gallery": "gallery:Gallery",
        "Garment": "results:Garment",
        "Match": "results:Match",
        "Recognition": "results:Recognition",
        "Reference": "results:Reference",
        "Refinement": "gallery:Refinement",
        "SegmentAnythingSegmenter": "models.sam:SegmentAnythingSegmenter",
        "Taxonomy": "taxonomy:Taxonomy",
        "doctor": "diagnostics:doctor",
        "download_model": "hub:resolve",
        "list_models": "hub:list_models",
        "to_coco": "results:to_coco",
        "to_yolo": "results:to_yolo",
    },
)

refine = alias_module(f"{__name__}.refine", {"Refinement": "gallery:Refinement", "Turn": "gallery:Turn"})


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
