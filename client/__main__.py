"""Lets `python -m client` do what `rootserve` does."""

from client.cli import main

if __name__ == "__main__":
    main()
