"""Readers, one per dataset layout."""
