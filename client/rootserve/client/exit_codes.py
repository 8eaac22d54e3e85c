"""What the shell is told."""

from enum import IntEnum


class ExitCode(IntEnum):
    """What `rootserve --help` explains.

    70 is what <sysexits.h> has for a program's own fault, 141 what a shell tells of a program that wrote
    to a reader who had gone.
    """

    OK = 0
    MISSED = 1
    USAGE = 2
    SERVER = 3
    FAULT = 70
    INTERRUPTED = 130
    PIPE = 141
