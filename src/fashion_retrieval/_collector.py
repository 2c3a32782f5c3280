"""Large packages are imported without Python's collector, which looks through all of them for garbage in vain."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Within it cycles of objects are not collected: torch and open_clip are imported in four fifths of the time.

    What was made within it counts as old afterwards, so that the collector does not look through it at once.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():  # else objects that the caller froze would thaw
            gc.freeze()
            gc.unfreeze()
        if enabled:
            gc.enable()
