"""Photos: reading, cropping, preprocessing, and reading ahead."""
