"""Model folders with graphs for other runtimes."""
