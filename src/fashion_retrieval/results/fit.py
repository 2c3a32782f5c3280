"""What fitting an attribute returns."""

from __future__ import annotations

from dataclasses import dataclass

from fashion_retrieval.results.retrieval import Failure
from fashion_retrieval.results.values import Plain


@dataclass(frozen=True, slots=True)
class FitScores(Plain):
    """How good labels are that were predicted for photos which had no part in what predicts them.

    Attributes:
        accuracy: Fraction that are right, in [0, 1].
        interval: Its 95% interval.
        macro_f1: Mean over the values of the F1 of each, in [0, 1].
        calibration_error: Mean distance of probability and accuracy over ten bins (ECE), in [0, 1].
    """

    accuracy: float
    interval: tuple[float, float]
    macro_f1: float
    calibration_error: float

    def __str__(self) -> str:
        low, high = self.interval
        figures = f"{self.accuracy:.3f} [{low:.3f}, {high:.3f}]   {self.macro_f1:.3f}   {self.calibration_error:.3f}"
        return figures.replace("   ", "      ")


@dataclass(frozen=True, slots=True)
class AttributeFit(Plain):
    """What `FashionModel.fit_attribute` made of labeled photos.

    Attributes:
        group: The attribute group ("closure").
        examples: How many photos it was fitted on, by value.
        fitted: Scores of the probe by cross-validation: each photo is judged by a probe that was fitted on others.
        prompts: Scores of the words alone on the same photos, among the same values.
        new_values: Values that the taxonomy did not have, and has now.
        unlabeled: How many photos had no label.
        failures: The labeled photos that can't be read.
    """

    group: str
    examples: dict[str, int]
    fitted: FitScores
    prompts: FitScores
    new_values: tuple[str, ...] = ()
    unlabeled: int = 0
    failures: tuple[Failure, ...] = ()

    def __str__(self) -> str:
        counts = ", ".join(f"{value} {count}" for value, count in self.examples.items())
        lines = [
            f"{self.group}: {sum(self.examples.values())} photos ({counts})",
            "           accuracy                  macro-F1   ECE",
            f"  probe    {self.fitted}",
            f"  prompts  {self.prompts}",
        ]
        lines += [f"  new in the taxonomy: {', '.join(self.new_values)}"] if self.new_values else []
        lines += [f"  photos without a label: {self.unlabeled}"] if self.unlabeled else []
        lines += [f"  photos that can't be read: {len(self.failures)}"] if self.failures else []
        return "\n".join(lines)
