"""The old name of `training.fit_colors`."""

from __future__ import annotations

import typer

from fashion_retrieval._utils.deprecation import warn_renamed
from training.fit_colors import main

if __name__ == "__main__":
    warn_renamed("python -m training.fit_colours", "python -m training.fit_colors", stacklevel=2)
    typer.run(main)
