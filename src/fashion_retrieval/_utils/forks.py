"""A process that was forked has one thread: what waits there for another thread of its parent hangs for ever."""

from __future__ import annotations

import os
import sys
import threading

from fashion_retrieval.errors import UnsupportedError

_home: int | None = None  # the process that opened the first model; a fork inherits it
_alone = True  # whether no other thread ran when this process was forked: what another one locked stays locked


def remember_process() -> None:
    """Called before a model is opened: processes that are forked from now on are told by `check_fork`."""
    global _home
    check_fork()
    if _home is None:
        _home = os.getpid()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=_remember_threads)


def check_fork(*, pools: bool = False) -> None:
    """Refuse to compute in a process that was forked from one that had opened a model, with an `UnsupportedError`.

    PyTorch goes on where it needs no other thread: it computes on one, and no other one ran at the fork. `pools` are
    runtimes with pools of threads of their own, which never go on.
    """
    if _home in (None, os.getpid()):
        return
    torch = sys.modules.get("torch")
    if pools or not _alone or (torch and torch.get_num_threads() > 1):
        raise UnsupportedError(
            "computing here would hang, because this process was forked from one that had opened a model: open models "
            "after the fork, start processes with the method 'spawn', or fork while no other thread runs and let "
            "backend='torch' compute on one (torch.set_num_threads(1))"
        )


def _remember_threads() -> None:
    global _alone
    others = sum(not thread.name.startswith("LanceDB") for thread in threading.enumerate())  # it starts its own anew
    _alone = others == 1 and (_alone or _home == os.getpid())  # of each fork in a line of them
