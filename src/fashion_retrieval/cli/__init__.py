"""The command `fashion-retrieval`."""

from fashion_retrieval.cli.app import main

__all__ = ["main"]
