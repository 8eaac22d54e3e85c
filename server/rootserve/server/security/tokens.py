"""Bearer tokens from a TOML file: read, compared in constant time, read again when it changes.

    open_health = true              # optional: the group health needs no token

    [[token]]
    name = "ci"                     # for messages; not secret
    sha256 = "9f86d081884c7d65..."  # of the token, in hex; or secret = "...", the token itself
    groups = ["health", "inference"]

No error, log line or repr holds a token, its hash, or any value of the file but names of tokens.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import stat
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from rootserve.server.security import SecurityError

CHECK_EVERY_S = 1.0
STALE_S = 30.0
"""For so long a file that cannot be used any more leaves in force what it said before."""
MIN_SECRET_LENGTH = 16
_MAX_FILE_BYTES = 2**20
_ENTRY_KEYS = {"name", "sha256", "secret", "groups"}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_SECRET = re.compile(r"[!-~]+")  # what a metadata value can carry, without spaces
_PLACE = re.compile(r"\((at [^()]*)\)$")

_log = logging.getLogger(__name__)


class Group(StrEnum):
    """Methods that are permitted together; none includes another."""

    HEALTH = "health"
    INFERENCE = "inference"
    ANALYSIS = "analysis"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Token:
    """Whose bearer may call the methods of ``groups``."""

    name: str
    groups: frozenset[Group]
    digest: bytes = field(repr=False)
    """SHA-256 of the token."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a file says."""

    tokens: tuple[Token, ...]
    open_health: bool = False

    def find(self, presented: str) -> Token | None:
        """The token that was presented, compared with every one so that the time tells nothing."""
        digest = hashlib.sha256(presented.encode("utf-8", "replace")).digest()
        found = None
        for token in self.tokens:
            if hmac.compare_digest(digest, token.digest):
                found = token
        return found


def parse_tokens(content: str) -> Tokens:
    """What the text of a token file says.

    Raises:
        SecurityError: it is no token file; says where and what was expected.
    """
    try:
        document = tomllib.loads(content)
    except (ValueError, RecursionError) as error:
        # The rest of the message may quote the file.
        place = _PLACE.search(str(error))
        raise SecurityError(f"not valid TOML, {place[1] if place else 'somewhere'}") from None
    if document.keys() - {"token", "open_health"}:
        raise SecurityError("expected nothing but [[token]] entries and open_health")
    open_health = document.get("open_health", False)
    if not isinstance(open_health, bool):
        raise SecurityError("open_health: expected true or false")
    entries = document.get("token")
    if not isinstance(entries, list) or not entries:
        raise SecurityError("expected at least one [[token]] entry")
    tokens = tuple(_parse_entry(number, entry) for number, entry in enumerate(entries, 1))
    _refuse_twins("name", (token.name for token in tokens))
    _refuse_twins("token", (token.digest for token in tokens))
    return Tokens(tokens, open_health)


def _parse_entry(number: int, entry: object) -> Token:
    where = f"[[token]] number {number}"
    if not isinstance(entry, dict):
        raise SecurityError(f"{where}: expected a table")
    if entry.keys() - _ENTRY_KEYS:
        raise SecurityError(f"{where}: expected no keys but {', '.join(sorted(_ENTRY_KEYS))}")
    name = entry.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise SecurityError(f"{where}: name: expected up to 64 letters, digits and . _ -")
    where += f", '{name}'"
    if ("sha256" in entry) == ("secret" in entry):
        raise SecurityError(f"{where}: expected either sha256 or secret")
    groups = entry.get("groups")
    known = [group.value for group in Group]
    if not isinstance(groups, list) or not groups or any(each not in known for each in groups):
        raise SecurityError(f"{where}: groups: expected a list with some of {', '.join(known)}")
    return Token(name, frozenset(map(Group, groups)), _digest(where, entry))


def _digest(where: str, entry: dict[str, object]) -> bytes:
    secret = entry.get("secret", "")
    sha256 = entry.get("sha256", "0" * 64)
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise SecurityError(f"{where}: sha256: expected 64 hexadecimal digits")
    if "sha256" in entry:
        return bytes.fromhex(sha256)
    if (
        not isinstance(secret, str)
        or not _SECRET.fullmatch(secret)
        or len(secret) < MIN_SECRET_LENGTH
    ):
        raise SecurityError(
            f"{where}: secret: expected {MIN_SECRET_LENGTH} or more ASCII characters without spaces"
        )
    return hashlib.sha256(secret.encode()).digest()


def _refuse_twins(what: str, values: Iterable[object]) -> None:
    seen: set[object] = set()
    for number, value in enumerate(values, 1):
        if value in seen:
            raise SecurityError(f"[[token]] number {number} has the {what} of an earlier one")
        seen.add(value)


class TokenStore:
    """The tokens of a file as it is now.

    A file that cannot be used leaves the last good tokens in force for `STALE_S`, in which it is tried again
    at every look: an editor, or a volume that is mounted anew, may be about to put it right. After that no
    token is known, and only what needs none is answered, until the file can be used: whoever takes tokens
    away by deleting the file, or damages it in doing so, must not keep them.
    """

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        """Read the file.

        Raises:
            SecurityError: it cannot be used.
        """
        self._path = path
        self._clock = clock
        self._version = _version(path)
        self._tokens = _read(path)
        self._checked_s = clock()
        self._bad_since_s: float | None = None
        self._told = ""

    def current(self) -> Tokens:
        """The tokens in force; looks at the file at most once in `CHECK_EVERY_S`."""
        now_s = self._clock()
        if now_s - self._checked_s >= CHECK_EVERY_S:
            self._checked_s = now_s
            version = _version(self._path)
            # What could not be read is read again, even if it looks the same: the error may have passed.
            if version is None or version != self._version:
                self._read_again(version, now_s)
        return self._tokens

    def _read_again(self, version: tuple[int, ...] | None, now_s: float) -> None:
        try:
            self._tokens = _read(self._path)
        except SecurityError as error:
            self._on_bad(str(error), now_s)
        else:
            # The version from before it was read: if it was replaced meanwhile, it is read once more.
            self._version = version
            self._bad_since_s, self._told = None, ""
            _log.info("token_file: %s read again, %d tokens", self._path, len(self._tokens.tokens))

    def _on_bad(self, error: str, now_s: float) -> None:
        if self._bad_since_s is None:
            self._bad_since_s = now_s
        if now_s - self._bad_since_s >= STALE_S:
            self._tokens = Tokens((), self._tokens.open_health)
            self._version = None
            text = f"{error}; no token is known until it can be used"
            level = logging.ERROR
        else:
            text = f"{error}; the tokens read before stay in force for {STALE_S:g} s"
            level = logging.WARNING
        if text != self._told:
            self._told = text
            _log.log(level, "%s", text)


def _version(path: Path) -> tuple[int, ...] | None:
    """Differs when the file was written, replaced, or given other permissions."""
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _read(path: Path) -> Tokens:
    try:
        # Without O_NONBLOCK the opening of a named pipe would wait for ever.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode) or found.st_size > _MAX_FILE_BYTES:
                raise SecurityError(f"token_file: {path}: expected a regular file of at most 1 MiB")
            if found.st_mode & 0o077:
                raise SecurityError(
                    f"token_file: {path} has mode {stat.S_IMODE(found.st_mode):03o}, so others than "
                    f"its owner can use it; expected 600 or less (chmod 600 {path})"
                )
            content = file.read(_MAX_FILE_BYTES)
    except OSError as error:
        raise SecurityError(f"token_file: {path} cannot be read: {error.strerror}") from None
    try:
        return parse_tokens(content.decode())
    except UnicodeDecodeError:
        raise SecurityError(f"token_file: {path}: expected UTF-8") from None
    except SecurityError as error:
        raise SecurityError(f"token_file: {path}: {error}") from None
