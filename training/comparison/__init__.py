"""Runs of all composers on equal terms."""
