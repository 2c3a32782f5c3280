"""Pickled weights as safetensors.

A pickle is read with `weights_only=True`, which builds tensors and nothing else, and in a child process, so that one
that was made to crash or to fill the memory takes no other process with it:
`python -m fashion_retrieval.export.pickles PICKLE SAFETENSORS`.
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

from fashion_retrieval._utils.child import run_module
from fashion_retrieval._utils.files import check_downloaded, write_atomically
from fashion_retrieval.config import ENCODER_CONFIG_NAME, ENCODER_WEIGHTS_NAME
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
    others = [path for pattern in ("*.pt", "*.pth") for path in folder.glob(pattern)]
    if not found and len(others) == 1 and (folder / ENCODER_CONFIG_NAME).is_file():  # as open_clip's training leaves it
        found = {others[0]: folder / ENCODER_WEIGHTS_NAME}
    if not found:
        expected = f"{' or '.join(_NAMES)}, or one .pt file beside {ENCODER_CONFIG_NAME}"
        raise WeightsError(f"expected {expected} in {folder}, found neither; download the repository first")
    return {new: _in_a_child(old, new) for old, new in found.items()}


def _in_a_child(old: Path, new: Path) -> int:
    check_downloaded(old)
    done = run_module(__name__, str(old), str(new))
    if done.returncode == 0:
        return int(done.stdout.split()[-1])
    reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    raise WeightsError(f"{old} can't be read as weights alone ({reason}); download it again")


def _convert(old: Path, new: Path) -> int:
    import torch
    from safetensors.torch import save_file

    try:
        state: Any = torch.load(old, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise SystemExit(str(error).partition("\n")[0]) from error
    if isinstance(state, dict):  # "CLIP": as OpenFashionCLIP has it
        state = next((state[key] for key in ("state_dict", "CLIP") if key in state), state)
    if not (isinstance(state, dict) and state and all(isinstance(item, torch.Tensor) for item in state.values())):
        raise SystemExit("it must hold tensors by name and nothing else")
    tensors = {name.removeprefix("module."): tensor.contiguous().clone() for name, tensor in state.items()}
    with write_atomically(new) as partial:
        save_file(tensors, partial, metadata={"format": "pt"})
    return len(tensors)


if __name__ == "__main__":
    print(_convert(*map(Path, sys.argv[1:])))
