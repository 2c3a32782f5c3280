"""Encoders computed by other runtimes than torch."""
