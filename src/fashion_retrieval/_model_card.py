"""The README.md of a model folder: metadata for the Hub, how to load it, what it was trained on, what was measured."""

from __future__ import annotations

from collections.abc import Iterable

from huggingface_hub import ModelCard, ModelCardData

from fashion_retrieval.config import ModelConfig
from fashion_retrieval.taxonomy import Taxonomy

CARD_NAME = "README.md"

_LICENCES = frozenset(
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

Install the library with `pip install fashion-retrieval`. The encoder alone also loads in open_clip, from
`open_clip_config.json` and `open_clip_model.safetensors`."""

_LIMITS = """\
Recognition is zero-shot: any word may be asked for, and words far from the training data are recognised less well.
Photos unlike the training data (drawings, close-ups of fabric, crowds) are outside of what was measured. The model says
nothing about the people in a photo and must not be used to."""


def render_card(config: ModelConfig, *, model_id: str | None = None) -> str:
    """Text of the model card; the same configuration always gives the same text.

    Args:
        config: The configuration saved beside the card.
        model_id: What `from_pretrained` takes in the example; the model's name by default.
    """
    sections = {
        "What it does": _abilities(config),
        "Use": _USAGE.format(model_id=model_id or config.name),
        "Training data": "\n".join(f"- {source}" for source in config.training_data) or "Not stated.",
        "Measured": _table(("figure", "value"), [(n, f"{v:.4g}") for n, v in sorted(config.figures.items())]),
        "Limits": _LIMITS,
        "Licence of the weights": config.licence,
        "Files": _table(("file", "sha256"), [(f"`{n}`", f"`{h}`") for n, h in _hashed(config)]),
    }
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections.items())
    card = ModelCard(f"---\n{_metadata(config).to_yaml()}\n---\n\n# {config.name}\n\n{body}\n")
    return str(card.content)


def _metadata(config: ModelConfig) -> ModelCardData:
    licence = config.licence.lower()
    known = licence in _LICENCES
    segments = ["image-segmentation"] if config.segmenter else []
    return ModelCardData(
        language="en",
        library_name="fashion-retrieval",
        license=licence if known else "other",
        license_name=None if known else licence,
        pipeline_tag="zero-shot-image-classification",
        tags=["fashion", "clip", "open_clip", *segments],
    )


def _abilities(config: ModelConfig) -> str:
    taxonomy = Taxonomy.load(config.taxonomy)
    groups = [f"{group.name} ({len(group.values)})" for group in (taxonomy.category, *taxonomy.attributes)]
    lines = [f"- Recognises, with the taxonomy `{taxonomy.name}` (values per group): {', '.join(groups)}."]
    if config.segmenter:
        lines.append(f"- Finds garments in a photo: {', '.join(config.segmenter.classes)}.")
    lines.append("- Encodes images and texts into one space, for search.")
    if config.composer:
        lines.append("- Composes a reference photo and a text into one query.")
    return "\n".join(lines)


def _hashed(config: ModelConfig) -> list[tuple[str, str]]:
    """Digests of the other files; the card can't hold its own."""
    return sorted((name, digest) for name, digest in config.sha256.items() if name != CARD_NAME)


def _table(head: tuple[str, str], rows: Iterable[tuple[str, str]]) -> str:
    lines = [f"| {left} | {right} |" for left, right in rows]
    return "\n".join([f"| {head[0]} | {head[1]} |", "|---|---|", *lines]) if lines else "None."
