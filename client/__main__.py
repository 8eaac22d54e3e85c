"""``python -m client`` in a checkout is ``rootserve``."""

from rootserve.client.cli import main

if __name__ == "__main__":
    main()
