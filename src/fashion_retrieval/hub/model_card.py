"""The README.md of a model folder: metadata for the Hub, how to load it, what it was trained on, what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from fashion_retrieval._utils.files import write_atomically
from fashion_retrieval.config import Figure, ModelConfig
from fashion_retrieval.taxonomy import Taxonomy

CARD_NAME = "README.md"

_LICENSES = frozenset(
    {"afl-3.0", "apache-2.0", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "gpl-3.0", "mit", "openrail", "unknown"}
    | {f"cc-by{kind}-{version}" for kind in ("", "-sa", "-nc", "-nc-sa") for version in ("3.0", "4.0")}
)
"""Identifiers the Hub accepts in the metadata; everything else must be called "other"."""

_USAGE = """\
```python
from fashion_retrieval import FashionModel

model = FashionModel.from_pretrained("{model_id}")
recognition = model.recognize("photo.jpg")
print(recognition)
```

Install the library with `pip install fashion-retrieval`. The encoder is a plain open_clip model too:

```python
import open_clip

clip, preprocess = open_clip.create_model_from_pretrained("{open_clip_id}")
tokenizer = open_clip.get_tokenizer("{open_clip_id}")
```
{folder_note}"""

_FOLDER_NOTE = """
`FOLDER` is the one this card lies in; `download_model("{model_id}")` gives its path."""

_LIMITS = """\
Recognition is zero-shot: any word may be asked for, and words far from the training data are recognized less well.
Photos unlike the training data (drawings, close-ups of fabric, crowds) are outside of what was measured. The model says
nothing about the people in a photo and must not be used to."""

_INTERVALS = """

An interval is the middle 95% of the figure over samples of the measured items drawn with replacement. No figure was
checked by others."""


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
    sections = {
        "What it does": _abilities(config),
        "Use": _usage(model_id or config.name),
        "Training data": "\n".join(f"- {source}" for source in config.training_data) or "Not stated.",
        "Measured": _measured(config.figures),
        "Limits": _LIMITS,
        "License of the weights": config.license,
        "Files": _table(("file", "sha256"), [(f"`{n}`", f"`{h}`") for n, h in _hashed(config)]),
    }
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections.items())
    card = ModelCard(f"---\n{_metadata(config).to_yaml()}\n---\n\n# {config.name}\n\n{body}\n")
    return str(card.content)


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


def _usage(model_id: str) -> str:
    on_hub = "/" in model_id
    return _USAGE.format(
        model_id=model_id,
        open_clip_id=f"hf-hub:{model_id}" if on_hub else "local-dir:FOLDER",
        folder_note="" if on_hub else _FOLDER_NOTE.format(model_id=model_id),
    ).rstrip()


def _abilities(config: ModelConfig) -> str:
    taxonomy = Taxonomy.load(config.taxonomy)
    groups = [f"{group.name} ({len(group.values)})" for group in (taxonomy.category, *taxonomy.attributes)]
    lines = [f"- Recognizes, with the taxonomy `{taxonomy.name}` (values per group): {', '.join(groups)}."]
    if config.segmenter:
        lines.append(f"- Finds garments in a photo: {', '.join(config.segmenter.classes)}.")
    lines.append("- Encodes images and texts into one space, for search.")
    if config.composer:
        lines.append("- Composes a reference photo and a text into one query.")
    return "\n".join(lines)


def _measured(figures: dict[str, Figure]) -> str:
    rows = [
        (name, f"{figure.value:.4g}", _range(figure), figure.data or "not stated")
        for name, figure in sorted(figures.items())
    ]
    table = _table(("figure", "value", "95% interval", "measured on"), rows)
    return table + _INTERVALS if any(figure.interval for figure in figures.values()) else table


def _range(figure: Figure) -> str:
    return f"{figure.interval[0]:.4g} to {figure.interval[1]:.4g}" if figure.interval else ""


def _hashed(config: ModelConfig) -> list[tuple[str, str]]:
    """Digests of the other files; the card can't hold its own."""
    return sorted((name, digest) for name, digest in config.sha256.items() if name != CARD_NAME)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return "None."
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))
