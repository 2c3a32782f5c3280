"""The README.md of a model folder: metadata for the Hub, how to load it, what it was trained on, what was measured."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from jinja2 import Environment

from fashion_retrieval._utils.files import asset, write_atomically
from fashion_retrieval.config import Figure, ModelConfig
from fashion_retrieval.taxonomy import Taxonomy

CARD_NAME = "README.md"

_LICENSES = frozenset(
    {"afl-3.0", "apache-2.0", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "gpl-3.0", "mit", "openrail", "unknown"}
    | {f"cc-by{kind}-{version}" for kind in ("", "-sa", "-nc", "-nc-sa") for version in ("3.0", "4.0")}
)
"""Identifiers the Hub accepts in the metadata; everything else must be called "other"."""


def write_card(config: ModelConfig, folder: Path, *, model_id: str | None = None) -> None:
    """Put the card into a model folder."""
    with write_atomically(folder / CARD_NAME) as path:
        path.write_bytes(render_card(config, model_id=model_id).encode())


def render_card(config: ModelConfig, *, model_id: str | None = None) -> str:
    """Text of the model card; the same configuration always gives the same text.

    Args:
        config: The configuration saved beside the card.
        model_id: What `from_pretrained` takes in the example; the model's name by default.
    """
    environment = Environment(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, autoescape=False)
    taxonomy = Taxonomy.load(config.taxonomy)
    model_id = model_id or config.name
    text = environment.from_string(asset("model_card.md")).render(
        config=config,
        metadata=_metadata(config).to_yaml(),
        taxonomy=taxonomy,
        groups=(taxonomy.category, *taxonomy.attributes),
        model_id=model_id,
        open_clip_id=f"hf-hub:{model_id}" if "/" in model_id else "local-dir:FOLDER",
        # the card can't hold its own digest
        digests=sorted((name, digest) for name, digest in config.sha256.items() if name != CARD_NAME),
    )
    return str(ModelCard(text).content)


def _metadata(config: ModelConfig) -> ModelCardData:
    license = config.license.lower()
    known = license in _LICENSES
    segments = ["image-segmentation"] if config.segmenter else []
    composes = ["composed-image-retrieval"] if config.composer else []
    results = _results(config.figures)
    return ModelCardData(
        language="en",
        library_name="fashion-retrieval",
        license=license if known else "other",
        license_name=None if known else license,
        pipeline_tag="zero-shot-image-classification",
        tags=["fashion", "clip", "open_clip", *segments, *composes],
        model_name=config.name if results else None,
        eval_results=results or None,
    )


def _results(figures: dict[str, Figure]) -> list[EvalResult]:
    """The figures that say what was measured on what: the Hub shows no others."""
    return [
        EvalResult(
            task_type=figure.task,
            dataset_type="custom",
            dataset_name=figure.data,
            dataset_config=figure.data,  # results of equal type and config would be put under one name
            metric_type=figure.metric,
            metric_name=name,
            metric_value=figure.value,
        )
        for name, figure in sorted(figures.items())
        if figure.task and figure.data and figure.metric
    ]
