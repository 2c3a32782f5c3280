"""Freed memory is kept for the next photo: getting it from the system anew costs a tenth of an inference."""

from __future__ import annotations

import ctypes
import os
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Names of settings in glibc's malloc.h."""
_KEPT, _OWN_MAPPING = 256 << 20, 32 << 20
"""Bytes that are kept at most, and from which a piece of memory is a mapping of its own, given back at once."""


def keep_freed() -> bool:
    """Tell glibc's malloc to keep freed memory, up to 256 MiB, for this process.

    Without it a forward pass gives the memory of its maps back to the system and faults it in again, page by page, for
    the next one. Settings of the user's own (MALLOC_… or GLIBC_TUNABLES in the environment) are left as they are, and
    so is any other malloc.

    Returns:
        Whether it was told.
    """
    if sys.platform != "linux" or any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_TRIM_THRESHOLD, _KEPT) and mallopt(_MMAP_THRESHOLD, _OWN_MAPPING))
