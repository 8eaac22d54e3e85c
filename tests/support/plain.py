"""What people read in a terminal of 80 columns."""


def assert_plain(text: str) -> None:
    """No escape sequences, and no line that is wider."""
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 80
