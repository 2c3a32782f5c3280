"""What several folders share and no folder owns."""
