"""`python -m fashion_retrieval.cli`."""

from fashion_retrieval.cli.app import main

main()
