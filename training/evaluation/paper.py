"""The paper's tables and the names of its methods."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

PAPER = Path(__file__).parents[1] / "results/paper.toml"


TITLES = {
    "tirg": "TIRG", "val": "VAL", "cosmo": "CoSMo", "dcnet": "DCNet", "sac": "SAC", "fashionvil": "FashionViL",
    "clvc_net": "CLVC-Net", "crn": "CRN", "combiner": "CLIP4Cir's Combiner", "lfm_ir": "LFM-IR",
    "agcn": "AGCN", "sum": "Sum", "only_text": "Only text", "only_image": "Only image", "add": "Add",
}  # fmt: skip
"""Names as in the paper's tables, in the order of rows; the variants last."""


def read_paper() -> dict[str, Any]:
    """The paper's tables, by name; see the file."""
    return tomllib.loads(PAPER.read_text(encoding="utf-8"))
