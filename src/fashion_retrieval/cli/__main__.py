"""`python -m fashion_retrieval.cli`."""

from fashion_retrieval.cli.app import main

if __name__ == "__main__":
    main()
