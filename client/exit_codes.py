"""What the shell is told."""

from enum import IntEnum


class ExitCode(IntEnum):
    """`rootserve --help` explains them."""

    OK = 0
    MISSED = 1
    USAGE = 2
    SERVER = 3
    INTERRUPTED = 130
