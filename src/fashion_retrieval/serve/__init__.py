"""The HTTP service, its page and its tools for agents."""
