"""A file of garments with pseudo labels."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from fashion_retrieval.errors import ConfigError
from training.data.manifest import Sample, read_lines
from training.engine.files import write_text

GARMENTS = "garments.jsonl"


def read_garments(folder: Path) -> list[Sample]:
    """Read what `training.pseudo_label` wrote."""
    path = folder / GARMENTS
    if not path.is_file():
        raise ConfigError(f"{path} is missing; make it with `python -m training.pseudo_label CONFIG`")
    samples = []
    for row in read_lines(path):
        for old, new in (("beliefs", "soft_labels"), ("colour", "color")):  # of release 0.1
            if old in row:
                row[new] = row.pop(old)
        row |= {"photo": Path(row["photo"]), "mask": row["mask"] and Path(row["mask"])}
        row |= {"box": row["box"] and tuple(row["box"]), "texts": tuple(row["texts"])}
        samples.append(Sample(**row))
    return samples


def write_garments(samples: Sequence[Sample], folder: Path) -> None:
    """Write one line a sample."""
    write_text(folder / GARMENTS, "".join(json.dumps(asdict(s), default=os.fspath) + "\n" for s in samples))
