"""From pixels and texts to results."""
