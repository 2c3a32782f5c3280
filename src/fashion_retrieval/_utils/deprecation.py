"""Old spellings: they work for one release and say what replaces them."""

from __future__ import annotations

import warnings

REMOVED_IN = "0.3"


def warn_renamed(old: str, new: str, *, stacklevel: int = 3) -> None:
    """Tell the caller's caller that a name has changed.

    Args:
        old: As the user wrote it: "Gallery.create(recognise=)", "key 'licence'".
        new: What to write instead.
        stacklevel: Of the line to name; 3 is whoever called the function that calls this one.
    """
    message = f"{old} is now {new}; the old name goes in release {REMOVED_IN}"
    warnings.warn(message, DeprecationWarning, stacklevel=stacklevel)
