"""Pickled weights as safetensors."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from fashion_retrieval._utils.files import write_atomically
from fashion_retrieval.errors import WeightsError

_NAMES = {"open_clip_pytorch_model.bin": "open_clip_model.safetensors", "pytorch_model.bin": "model.safetensors"}


def convert_folder(folder: Path) -> dict[Path, int]:
    """Rewrite a folder's pickles, each whole or not at all.

    Returns:
        The files written, with how many tensors each holds.

    Raises:
        WeightsError: No pickle of a known name, or one that holds more than tensors.
    """
    found = {folder / old: folder / new for old, new in _NAMES.items() if (folder / old).is_file()}
    if not found:
        raise WeightsError(f"expected {' or '.join(_NAMES)} in {folder}, found neither; download the repository first")
    return {new: _convert(old, new) for old, new in found.items()}


def _convert(old: Path, new: Path) -> int:
    try:
        state: Any = torch.load(old, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise WeightsError(f"{old} can't be read as weights alone ({reason}); download it again") from error
    state = state.get("state_dict", state) if isinstance(state, dict) else None
    if not state or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise WeightsError(f"{old} must hold tensors by name and nothing else; it is no file of weights")
    tensors = {name.removeprefix("module."): tensor.contiguous().clone() for name, tensor in state.items()}
    with write_atomically(new) as partial:
        save_file(tensors, partial, metadata={"format": "pt"})
    return len(tensors)
