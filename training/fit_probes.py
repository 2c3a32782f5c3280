"""Fit what a photo can't show: for sleeve, length and neckline a probe of "not visible" on the frozen encoder.

python -m training.fit_probes training/configs/probes_compact.toml

Labeled garments of `train`, whole and cut (docs/models/compact.md), are embedded once; a later fit, say after another
text tower, takes seconds. The output is the model with its probes; embeddings are what they were, and values in view
keep the order that the prompts give them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from pydantic import with_config
from torch.nn import functional

from fashion_retrieval import FashionModel
from fashion_retrieval.checkpoint.folder import load
from fashion_retrieval.config import ProbeConfig
from fashion_retrieval.hub.download import resolve
from fashion_retrieval.inference.recognition import Recognizer
from fashion_retrieval.models.probe import TINY, Floats, Probe
from fashion_retrieval.models.zero_shot import attribute_view
from fashion_retrieval.taxonomy import Group
from training.data.cuts import CUTS, FOLDS, HIDDEN, OUT_OF_VIEW, UNKNOWN, cut_states, fold_of
from training.data.views import PHOTO, Views, load_views
from training.engine.errors import one_line_errors
from training.engine.settings import SCHEMA, Positive, read_settings
from training.evaluation.visibility import f1
