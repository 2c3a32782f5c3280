"""The modules with weights; the one place that imports open_clip, timm and segment_anything."""
