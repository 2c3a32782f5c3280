"""Recipes that make the published weights; not part of the installed package."""
