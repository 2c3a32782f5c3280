"""What a forward pass saves for the backward pass, and the most memory that tensors hold at one time; any device."""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from torch import Tensor, UntypedStorage, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_BLOCK = re.compile(r"(?:.*\.)?(?:resblocks|blocks|stages|layers)\.\d+")


@dataclass(frozen=True, slots=True)
class Saved:
    """Bytes that a forward pass saves for the backward pass.

    Attributes:
        outside: Of the blocks.
        blocks: Of each transformer block or CNN stage.
        inputs: What goes into each of them.
    """

    outside: float
    blocks: tuple[float, ...] = ()
    inputs: tuple[float, ...] = ()

    @property
    def plain(self) -> float:
        """All of it."""
        return self.outside + sum(self.blocks)

    @property
    def checkpointed(self) -> float:
        """With gradient checkpointing: what goes into the blocks, and the largest one, computed again."""
        return self.outside + sum(self.inputs) + max(self.blocks, default=0)


def saved_by(forward: Callable[[], Tensor], module: nn.Module) -> Saved:
    """Run a forward pass and add up what it saves; weights, which are there anyway, don't count."""
    blocks = [part for name, part in module.named_modules() if _BLOCK.fullmatch(name)]
    known = {_address(tensor) for tensor in module.state_dict().values()}
    inputs, saved = [0] * len(blocks), [0] * (len(blocks) + 1)
    place = len(blocks)

    def pack(tensor: Tensor) -> Tensor:
        if _address(tensor) not in known:
            known.add(_address(tensor))  # it lives as long as the graph, so that no other gets its address
            saved[place] += tensor.untyped_storage().nbytes()
        return tensor

    def enter(number: int, tensors: Sequence[Any]) -> None:
        nonlocal place
        place = number
        inputs[number] = tensors[0].untyped_storage().nbytes()

    def leave() -> None:
        nonlocal place
        place = len(blocks)

    with ExitStack() as stack:
        for number, block in enumerate(blocks):
            before = block.register_forward_pre_hook(lambda _, tensors, number=number: enter(number, tensors))
            after = block.register_forward_hook(lambda *_: leave())
            stack.callback(before.remove)
            stack.callback(after.remove)
        with saved_tensors_hooks(pack, lambda tensor: tensor):
            graph = forward()
    del graph
    return Saved(saved[-1], tuple(saved[:-1]), tuple(inputs))


def on_line(by_batch: Mapping[int, Saved], batch: int) -> Saved:
    """What another batch saves, on the line through two measured ones; copies of weights, for one, are constant."""
    (here, first), (there, second) = by_batch.items()

    def at(a: float, b: float) -> float:
        return a + (b - a) * (batch - here) / (there - here)

    return Saved(
        at(first.outside, second.outside),
        tuple(map(at, first.blocks, second.blocks)),
        tuple(map(at, first.inputs, second.inputs)),
    )


class Peak(TorchDispatchMode):
    """Counts the bytes of tensors made inside it.

    Attributes:
        held: Of those that are alive.
        most: The most that `held` was.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.held: int = 0
        self.most: int = 0
        self._alive: set[int] = set()

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Run an operation and note what it made."""
        made = func(*args, **(kwargs or {}))
        given = {storage._cdata for storage in _storages((args, kwargs))}
        for storage in _storages(made):
            key, size = storage._cdata, storage.nbytes()
            if key not in given | self._alive:
                self._alive.add(key)
                weakref.finalize(storage, self._drop, key, size)
                self.held += size
        self.most = max(self.most, self.held)
        return made

    def _drop(self, key: int, size: int) -> None:
        self._alive.discard(key)
        self.held -= size


def _storages(tree: object) -> list[UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
