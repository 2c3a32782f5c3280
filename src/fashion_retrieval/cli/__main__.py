"""`python -m fashion_retrieval.cli`."""

from fashion_retrieval.cli.commands import main

if __name__ == "__main__":
    main()
