"""Metrics, and what is measured with them."""
