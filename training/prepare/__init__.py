"""What is made of a data set before training: a check, masks, captions, colors, photos."""
