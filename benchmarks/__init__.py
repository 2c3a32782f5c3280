"""Speed, memory and colors, measured side by side with what people would use instead: `python -m benchmarks --help`."""
