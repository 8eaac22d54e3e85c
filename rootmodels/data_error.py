"""What can be wrong with a data set; importable without the libraries that read one."""

from __future__ import annotations


class DataError(ValueError):
    """A data set cannot be read; says which file, what was wrong and what was expected."""
