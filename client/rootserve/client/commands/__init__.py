"""What each command of `rootserve` does; the arguments are in `rootserve.client.cli`."""
