"""Folders that tests read."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
DATA = ROOT.parent / "shared/data"
"""Real photos with labels; checks that need them are skipped where it is missing."""
