"""Weights of a module: building it without drawing them, reading a file, filling it strictly, their digest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fashion_retrieval._utils.files import check_downloaded
from fashion_retrieval.errors import WeightsError

_RANDOM = {Tensor.normal_, Tensor.uniform_, nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_}


class NoRandomWeights(TorchFunctionMode):
    """A context in which modules are built without drawing random weights: `fill` replaces them.

    Buffers that are not random, such as masks and fixed embeddings, get their values.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:  # noqa: ANN401  # whatever torch gives
        given = kwargs or {}
        if func in _RANDOM:
            return given["tensor"] if "tensor" in given else args[0]
        if func is torch.randn:
            return torch.empty(*args, **given)
        return func(*args, **given)


def weight_files(path: Path) -> list[Path]:
    """A safetensors file, or the shards in its place (`name-00001-of-00002.safetensors`); none where neither is."""
    return [path] if path.is_file() else sorted(path.parent.glob(f"{path.stem}-*-of-*{path.suffix}"))


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file or of its shards, mapped into memory.

    A WeightsError tells of a file that is missing, damaged, or a pointer that Git LFS did not replace.
    """
    files = weight_files(path) or [path]
    parts = files[0].stem.rpartition("-of-")[2]
    if files != [path] and (not parts.isdecimal() or len(files) != int(parts)):
        raise WeightsError(f"{path} is in {parts} parts, {len(files)} of which are here; download them again")
    state: dict[str, Tensor] = {}
    for file in files:
        check_downloaded(file)
        try:
            state |= load_file(file)
        except (SafetensorError, OSError, ValueError) as error:
            raise WeightsError(f"{file} is truncated, corrupt or missing ({error}); download it again") from error
    return state


def fill(
    module: nn.Module,
    state: Mapping[str, Tensor],
    path: Path,
    *,
    expected: str = "its configuration describes",
    remedy: str = "use the weights that belong to it",
) -> None:
    """Make the tensors of a file a module's own, each in the module's type.

    A WeightsError tells of each tensor that is missing, is not the module's, or has another shape or kind of number.
    """
    own = module.state_dict()
    differing = [
        f"{name} {_signature(state[name])} instead of {_signature(own[name])}"
        for name in own.keys() & state.keys()
        if _signature(own[name]) != _signature(state[name])
    ]
    lists = {
        "missing": own.keys() - state.keys(),
        "unexpected": state.keys() - own.keys(),
        "of another shape or type": differing,
    }
    faults = [f"{label}: {_first_few(names)}" for label, names in lists.items() if names]
    if faults:
        raise WeightsError(f"{path} is a file for another architecture than {expected} ({'; '.join(faults)}); {remedy}")
    taken = {name: state[name].to(tensor.dtype).contiguous() for name, tensor in own.items()}
    module.load_state_dict(taken, strict=True, assign=True)


def weights_digest(module: nn.Module, prefix: bytes = b"", *, stored_as: torch.dtype = torch.float32) -> str:
    """SHA-256 of a prefix and a float32 module's weights with their names, as they are read from a file of a type."""
    digest = hashlib.sha256(prefix)
    for name, value in sorted(module.state_dict().items()):
        stored = value.detach().cpu()
        if stored.is_floating_point():
            stored = stored.to(stored_as).to(value.dtype)
        digest.update(name.encode())
        digest.update(stored.contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _signature(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)}{'' if tensor.is_floating_point() else ' of whole numbers'}"


def _first_few(names: Iterable[str]) -> str:
    ordered = sorted(names)
    more = f" and {len(ordered) - 3} more" if len(ordered) > 3 else ""
    return ", ".join(ordered[:3]) + more
