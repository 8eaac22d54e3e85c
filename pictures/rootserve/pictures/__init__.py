"""How picture files and data sets of them are read: once, for client, service and networks alike.

Knows Pillow, pyarrow and NumPy, which are imported where something is read.
"""


class PictureError(ValueError):
    """A picture cannot be used; one line that says what is wrong with it."""


class DataError(ValueError):
    """A data set cannot be read; one line that says which file, what was wrong and what was expected."""
