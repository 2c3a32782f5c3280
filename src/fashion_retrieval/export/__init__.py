"""Export of models for other runtimes."""
