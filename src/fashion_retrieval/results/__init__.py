"""Results: frozen, validated dataclasses that become JSON, text and pictures."""

from fashion_retrieval._utils.deprecation import warn_renamed
from fashion_retrieval.results.datasets import to_coco, to_yolo
from fashion_retrieval.results.evaluation import Comparison, Evaluation
from fashion_retrieval.results.fit import AttributeFit, FitScores
from fashion_retrieval.results.matches import Matches
from fashion_retrieval.results.recognition import Garment, Recognition, Region, Segmenter
from fashion_retrieval.results.retrieval import Encoded, Explanation, Failure, Match, Reference
from fashion_retrieval.results.values import Attribute, Box, Color, Mask, Scalar, Score, Status

__all__ = [
    "Attribute",
    "AttributeFit",
    "Box",
    "Color",
    "Comparison",
    "Encoded",
    "Evaluation",
    "Explanation",
    "Failure",
    "FitScores",
    "Garment",
    "Mask",
    "Match",
    "Matches",
    "Recognition",
    "Reference",
    "Region",
    "Scalar",
    "Score",
    "Segmenter",
    "Status",
    "to_coco",
    "to_yolo",
]


def __getattr__(name: str) -> object:
    if name != "Colour":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warn_renamed("results.Colour", "results.Color")
    return Color
