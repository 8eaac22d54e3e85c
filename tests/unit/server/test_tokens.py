import contextlib
import hashlib
import hmac
import logging
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from rootserve.server.refusals import Reason, RefusalError
from rootserve.server.security import SecurityError
from rootserve.server.security.authorize import Authorizer, bearer_token, group_of
from rootserve.server.security.tokens import (
    CHECK_EVERY_S,
    STALE_S,
    Group,
    Tokens,
    TokenStore,
    parse_tokens,
)

SECRET = "correct-horse-battery"
OTHER = "staple-correct-horse"
INFER = "/inference.GRPCInferenceService/ModelInfer"


def entry(
    name: str = "ci", value: str = f'secret = "{SECRET}"', groups: str = '["inference"]'
) -> str:
    return f'[[token]]\nname = "{name}"\n{value}\ngroups = {groups}\n'


def sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


# Parsing.


def test_a_token_may_be_given_as_itself_or_as_its_hash() -> None:
    tokens = parse_tokens(
        "open_health = true\n"
        + entry()
        + entry("probe", f'sha256 = "{sha256(OTHER).upper()}"', '["health", "admin"]')
    )
    assert tokens.open_health
    found = tokens.find(SECRET)
    assert found is not None
    assert (found.name, found.groups) == ("ci", {Group.INFERENCE})
    probe = tokens.find(OTHER)
    assert probe is not None
    assert (probe.name, probe.groups) == ("probe", {Group.HEALTH, Group.ADMIN})
    assert tokens.find(sha256(OTHER)) is None
    assert tokens.find("") is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "at least one [[token]] entry"),
        ("token = 5", "at least one [[token]] entry"),
        ("token = [5]", "number 1: expected a table"),
        (f"{SECRET} {SECRET}", "not valid TOML, at line 1"),
        (f"token = {'[' * 10_000}", "not valid TOML"),
        (f"token = {'9' * 5_000}", "not valid TOML"),
        (f"tokens = '{SECRET}'\n{entry()}", "nothing but [[token]] entries"),
        (f"open_health = '{SECRET}'\n{entry()}", "open_health: expected true or false"),
        (entry("two words"), "number 1: name: expected"),
        (entry(value=""), "'ci': expected either sha256 or secret"),
        (
            entry(value=f'secret = "{SECRET}"\nsha256 = "{sha256(SECRET)}"'),
            "'ci': expected either sha256 or secret",
        ),
        (entry(value='secret = "short"'), "16 or more ASCII characters"),
        (entry(value=f'secret = "{SECRET} {SECRET}"'), "16 or more ASCII characters"),
        (entry(value=f'secret = ["{SECRET}"]'), "16 or more ASCII characters"),
        (entry(value=f'sha256 = "{SECRET}"'), "sha256: expected 64 hexadecimal digits"),
        (entry(value=f'{SECRET} = "x"'), "expected no keys but groups, name, secret, sha256"),
        (entry(groups="[]"), "groups: expected a list with some of health, inference, analysis"),
        (entry(groups=f'["{SECRET}"]'), "groups: expected a list"),
        (entry(groups="[[]]"), "groups: expected a list"),
        (entry() + entry(value=f'secret = "{OTHER}"'), "number 2 has the name of an earlier one"),
        (entry() + entry("b"), "number 2 has the token of an earlier one"),
    ],
)
def test_a_bad_file_is_refused_with_the_place_and_without_its_secrets(
    text: str, words: str
) -> None:
    with pytest.raises(SecurityError) as caught:
        parse_tokens(text)
    assert words in str(caught.value)
    assert SECRET not in str(caught.value)


@given(st.text(max_size=200))
def test_any_text_is_tokens_or_a_security_error(text: str) -> None:
    with contextlib.suppress(SecurityError):
        parse_tokens(text)


printable = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=16)


@given(st.lists(printable, min_size=1, max_size=6, unique=True), st.text(max_size=40))
def test_a_token_is_found_exactly_if_it_is_one_of_them(secrets: list[str], other: str) -> None:
    tokens = parse_tokens(
        "".join(
            entry(f"t{number}", f'sha256 = "{sha256(secret)}"')
            for number, secret in enumerate(secrets)
        )
    )
    for number, secret in enumerate(secrets):
        found = tokens.find(secret)
        assert found is not None
        assert found.name == f"t{number}"
    assert (tokens.find(other) is not None) == (other in secrets)


def test_every_token_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["a", "b", "c"]
    tokens = parse_tokens(
        "".join(entry(name, f'secret = "{name * 20}"') for name in names),
    )
    compared: list[bytes] = []
    real = hmac.compare_digest

    def compare(left: bytes, right: bytes) -> bool:
        compared.append(right)
        return real(left, right)

    monkeypatch.setattr("rootserve.server.security.tokens.hmac.compare_digest", compare)
    for presented in ("a" * 20, "c" * 20, "x"):
        compared.clear()
        tokens.find(presented)
        assert compared == [token.digest for token in tokens.tokens]


def test_no_repr_tells_a_secret() -> None:
    tokens = parse_tokens(entry())
    digest = hashlib.sha256(SECRET.encode())
    for text in (repr(tokens), str(tokens.tokens[0])):
        assert SECRET not in text
        assert digest.hexdigest() not in text
        assert repr(digest.digest()) not in text


# The file.


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    """Replace the file, so that it is another one whatever the clock of the file system says."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.chmod(mode)
    fresh.replace(path)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "tokens.toml", entry())


def knows(store: TokenStore, secret: str) -> bool:
    return store.current().find(secret) is not None


def test_the_file_is_read_again_when_it_changed_and_looked_at_once_a_second(path: Path) -> None:
    clock = Clock()
    store = TokenStore(path, clock)
    write(path, entry(value=f'secret = "{OTHER}"'))
    clock.now_s += CHECK_EVERY_S * 0.9
    assert knows(store, SECRET)
    clock.now_s += CHECK_EVERY_S * 0.2
    assert knows(store, OTHER)
    assert not knows(store, SECRET)


def test_an_unchanged_file_is_not_read_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    store = TokenStore(path, clock)
    before = store.current()
    monkeypatch.setattr(
        "rootserve.server.security.tokens._read", lambda _: pytest.fail("read again")
    )
    clock.now_s += 10
    assert store.current() is before


@pytest.mark.parametrize("change", ["damaged", "open to others", "gone"])
def test_a_bad_change_leaves_the_last_good_tokens_and_is_told_once(
    path: Path, caplog: pytest.LogCaptureFixture, change: str
) -> None:
    clock = Clock()
    store = TokenStore(path, clock)
    if change == "gone":
        path.unlink()
    else:
        damaged = change == "damaged"
        text = f"{OTHER} {OTHER}" if damaged else entry(value=f'secret = "{OTHER}"')
        write(path, text, 0o600 if damaged else 0o604)
    with caplog.at_level(logging.INFO):
        for _ in range(5):
            clock.now_s += 1
            assert knows(store, SECRET)
            assert not knows(store, OTHER)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith(f"token_file: {path}")
    assert record.getMessage().endswith("the tokens read before stay in force for 30 s")
    assert OTHER not in record.getMessage()
    caplog.clear()
    with caplog.at_level(logging.INFO):
        for _ in range(5):
            clock.now_s += STALE_S / 2
            store.current()
    assert not knows(store, SECRET), "whoever deletes the file takes its tokens away"
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert record.getMessage().endswith("no token is known until it can be used")
    caplog.clear()
    write(path, entry(value=f'secret = "{OTHER}"'))
    clock.now_s += 1
    assert knows(store, OTHER)
    assert all(OTHER not in each.getMessage() for each in caplog.records)


def test_an_error_that_passes_does_not_keep_what_was_taken_away(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file was replaced, and the first try to read it failed for a reason that is not its own."""
    clock = Clock()
    store = TokenStore(path, clock)
    write(path, entry(value=f'secret = "{OTHER}"'))
    real_open = os.open

    def fail(*args: object) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("rootserve.server.security.tokens.os.open", fail)
    clock.now_s += CHECK_EVERY_S
    assert knows(store, SECRET)
    monkeypatch.setattr("rootserve.server.security.tokens.os.open", real_open)
    clock.now_s += CHECK_EVERY_S
    assert not knows(store, SECRET)
    assert knows(store, OTHER)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601])
def test_a_file_that_others_can_use_is_refused(path: Path, mode: int) -> None:
    path.chmod(mode)
    with pytest.raises(SecurityError, match=rf"has mode {mode:o}.*chmod 600 "):
        TokenStore(path, Clock())


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_file_for_its_owner_alone_is_read(path: Path, mode: int) -> None:
    path.chmod(mode)
    assert knows(TokenStore(path, Clock()), SECRET)


def test_what_is_no_regular_file_of_text_is_refused(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    binary = tmp_path / "binary"
    binary.touch(0o600)
    binary.write_bytes(b"\xff\xfe")
    for bad, words in (
        (pipe, "expected a regular file"),
        (tmp_path, "Is a directory"),
        (binary, "expected UTF-8"),
        (tmp_path / "nowhere", "cannot be read: No such file"),
    ):
        with pytest.raises(SecurityError, match=words):
            TokenStore(bad, Clock())


# Groups.


@pytest.mark.parametrize(
    ("method", "group"),
    [
        ("/grpc.health.v1.Health/Check", Group.HEALTH),
        ("/grpc.health.v1.Health/Watch", Group.HEALTH),
        ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Group.HEALTH),
        ("/inference.GRPCInferenceService/ModelReady", Group.HEALTH),
        (INFER, Group.INFERENCE),
        ("/inference.GRPCInferenceService/ModelStreamInfer", Group.INFERENCE),
        ("/rootserve.v1.CatalogService/ListModels", Group.INFERENCE),
        ("/rootserve.v1.AnalysisService/Anything", Group.ANALYSIS),
        ("/inference.GRPCInferenceService/RepositoryModelLoad", Group.ADMIN),
        ("/inference.GRPCInferenceService/LogSettings", Group.ADMIN),
        ("/rootserve.v1.CatalogService/Unheard", Group.ADMIN),
        ("/rootserve.v1.AnalysisServices/Anything", Group.ADMIN),
        ("", Group.ADMIN),
    ],
)
def test_the_group_of_a_method(method: str, group: Group) -> None:
    assert group_of(method) is group


def test_the_table_has_no_method_that_does_not_exist() -> None:
    service = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    groups = {
        method.name: group_of(f"/{service.full_name}/{method.name}") for method in service.methods
    }
    admin = {name for name, group in groups.items() if group is Group.ADMIN}
    assert {"RepositoryModelLoad", "RepositoryModelUnload"} <= admin
    assert not {name for name in admin if name.startswith(("Model", "Server"))}
    assert sum(group is Group.HEALTH for group in groups.values()) == 3
    assert sum(group is Group.INFERENCE for group in groups.values()) == 12


@given(st.text())
def test_a_method_nobody_thought_of_is_for_admins(method: str) -> None:
    assert group_of(f"/new.Service/{method}") is Group.ADMIN


@pytest.mark.parametrize(
    ("metadata", "token"),
    [
        ([("authorization", f"Bearer {SECRET}")], SECRET),
        ([("authorization", f" Bearer {SECRET}")], SECRET),
        ([("user-agent", "x"), ("authorization", f"bearer  {SECRET} ")], SECRET),
        ([], None),
        ([("authorization", SECRET)], None),
        ([("authorization", f"Basic {SECRET}")], None),
        ([("authorization", "Bearer ")], None),
        ([("authorization", b"Bearer x")], None),
        ([("authorization", f"Bearer {SECRET}")] * 2, None),
    ],
)
def test_the_token_of_a_call(metadata: list[tuple[str, str | bytes]], token: str | None) -> None:
    assert bearer_token(metadata) == token


def authorizer(tmp_path: Path, text: str) -> Authorizer:
    return Authorizer(TokenStore(write(tmp_path / "t.toml", text), Clock()))


def test_a_call_needs_a_token_of_the_group_of_its_method(tmp_path: Path) -> None:
    gate = authorizer(tmp_path, entry())
    gate.check(INFER, [("authorization", f"Bearer {SECRET}")])
    for method, token, reason in (
        (INFER, None, Reason.UNAUTHENTICATED),
        (INFER, OTHER, Reason.UNAUTHENTICATED),
        ("/grpc.health.v1.Health/Check", None, Reason.UNAUTHENTICATED),
        ("/grpc.health.v1.Health/Check", SECRET, Reason.PERMISSION_DENIED),
        ("/unheard.Service/Of", SECRET, Reason.PERMISSION_DENIED),
    ):
        metadata = [("authorization", f"Bearer {token}")] if token else []
        with pytest.raises(RefusalError) as caught:
            gate.check(method, metadata)
        assert caught.value.reason is reason
        assert f"'{group_of(method)}'" in caught.value.message
        assert SECRET not in caught.value.message
        assert OTHER not in caught.value.message


def test_health_may_be_open(tmp_path: Path) -> None:
    gate = authorizer(tmp_path, f"open_health = true\n{entry()}")
    gate.check("/grpc.health.v1.Health/Check", [])
    gate.check("/grpc.health.v1.Health/Check", [("authorization", "Bearer wrong")])
    with pytest.raises(RefusalError):
        gate.check(INFER, [])


def test_a_token_that_is_no_unicode_is_unknown() -> None:
    assert Tokens(()).find("\ud800") is None
