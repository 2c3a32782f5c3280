"""The old name of `training.fit_colors`."""

from __future__ import annotations

import runpy

from fashion_retrieval._utils.deprecation import warn_renamed

if __name__ == "__main__":
    warn_renamed("python -m training.fit_colours", "python -m training.fit_colors", stacklevel=2)
    runpy.run_module("training.fit_colors", run_name="__main__", alter_sys=True)
