"""Lets `python -m rootserve.client` do what `rootserve` does."""

from rootserve.client.cli import main

if __name__ == "__main__":
    main()
