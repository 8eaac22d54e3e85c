"""How log lines look: for people, or one JSON object per line, with the fields a record carries."""

from __future__ import annotations

import json
import logging
import math
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import Enum

from rootserve.server import core_is, version
from rootserve.server.settings import Settings

_log = logging.getLogger(__name__)

# What every record has; all else came as ``extra``. Python 3.12 added taskName.
_RECORD_ATTRIBUTES = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_OWN_KEYS = frozenset({"time", "level", "logger", "message", "exception", "stack"})
_BARE_VALUE = re.compile(r"[\w.:/+-]+", re.ASCII)
_DEEPEST = 4


def configure(settings: Settings) -> None:
    """Send every log line, and Python's warnings, to stderr in the format that is asked for.

    Has no effect when logging is configured already.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if settings.log_format == "json" else HumanFormatter())
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler])
    logging.captureWarnings(True)


class JsonFormatter(logging.Formatter):
    """One JSON object per line, whatever the record carries."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of ``record``."""
        created = datetime.fromtimestamp(record.created, UTC)
        line: dict[str, object] = {
            "time": created.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _plain(_message(record)),
        }
        for key, value in _fields(record).items():
            line[f"{key}_" if key in _OWN_KEYS else key] = value
        if record.exc_info:
            line["exception"] = _plain(self.formatException(record.exc_info))
        if record.stack_info:
            line["stack"] = _plain(self.formatStack(record.stack_info))
        return json.dumps(line)


class HumanFormatter(logging.Formatter):
    """One line, the fields at its end as key=value; a stack trace follows on its own lines."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """The line without a stack trace."""
        fields = "".join(f" {key}={_shown(value)}" for key, value in _fields(record).items())
        return _one_line(super().formatMessage(record)) + fields


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 - a line with the wrong arguments still tells something
        return f"{_text(record.msg)} {_text(record.args)}"


def _fields(record: logging.LogRecord) -> dict[str, object]:
    """What came as ``extra``, as JSON has it."""
    return {
        key: _plain(value) for key, value in vars(record).items() if key not in _RECORD_ATTRIBUTES
    }


def _plain(value: object, depth: int = 0) -> object:
    """``value`` in JSON's types; text where it has no place there."""
    plain: object
    if isinstance(value, Enum):
        plain = _plain(value.value, depth + 1) if depth < _DEEPEST else _text(value)
    elif value is None or isinstance(value, bool):
        plain = value
    elif isinstance(value, int):
        plain = int(value) if abs(value) < 2**64 else _text(value)
    elif isinstance(value, float):
        plain = float(value) if math.isfinite(value) else str(float(value))
    elif isinstance(value, str):
        plain = value.encode(errors="replace").decode()  # a lone surrogate is no text
    elif isinstance(value, Mapping) and depth < _DEEPEST:
        plain = {_text(key): _plain(item, depth + 1) for key, item in value.items()}
    elif isinstance(value, list | tuple | set | frozenset) and depth < _DEEPEST:
        plain = [_plain(item, depth + 1) for item in value]
    else:
        plain = _text(value)
    return plain


def _text(value: object) -> str:
    try:
        return str(value).encode(errors="replace").decode()
    except Exception:  # noqa: BLE001 - a log line must not fail because of what it tells
        return f"<{type(value).__name__} that cannot be shown>"


def _shown(value: object) -> str:
    """A field for people, quoted unless it is one word: no value can look like another field."""
    if isinstance(value, str) and _BARE_VALUE.fullmatch(value):
        return value
    return json.dumps(value)


def _one_line(text: str) -> str:
    """``text`` with what would break the line, or rule the terminal, escaped."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def tell_settings(settings: Settings) -> None:
    """Log what the service runs with: what differs from the defaults, which ``--help`` tells."""
    changed = settings.changed()
    text = ", ".join(f"{key}={value}" for key, value in changed.items()) or "all defaults"
    core = core_is()
    fields = {"core": core, "settings": changed}
    _log.info("rootserve %s, core: %s, settings: %s", version(), core, text, extra=fields)
