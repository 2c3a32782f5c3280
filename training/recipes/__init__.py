"""Losses, settings and objectives of RaF-CLIP and AGCN."""
