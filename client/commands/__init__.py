"""What each command of `rootserve` does; the arguments are in `client.cli`."""
