"""The command `fashion-retrieval`."""

from fashion_retrieval.cli.commands import app, main

__all__ = ["app", "main"]
