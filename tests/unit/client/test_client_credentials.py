"""Credentials from files: what is taken, what is refused, and that no secret shows."""

import json
from pathlib import Path

import pytest

from rootserve.client.credentials import PLAINTEXT, CredentialFiles, Credentials
from rootserve.client.errors import InputError
from rootserve.client.load.options import LoadOptions

TOKEN = "0123456789-token"


def test_without_files_it_is_plaintext() -> None:
    assert CredentialFiles().read({}) == PLAINTEXT


def test_the_file_wins_over_the_environment_and_loses_its_line_end(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    assert CredentialFiles(token=path).read({"ROOTSERVE_TOKEN": "other"}).token == TOKEN
    assert CredentialFiles().read({"ROOTSERVE_TOKEN": TOKEN}).token == TOKEN
    assert CredentialFiles().read({"ROOTSERVE_TOKEN": ""}).token is None


@pytest.mark.parametrize("content", ["", "\n", f"{TOKEN}\n{TOKEN}", f"{TOKEN} x", "tökenXXXXXXXX"])
def test_a_file_with_anything_but_one_token_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "token"
    path.write_text(content)
    with pytest.raises(InputError, match=r"--token-file: .*expected one token") as caught:
        CredentialFiles(token=path).read({})
    assert TOKEN not in str(caught.value)


def test_a_bad_token_in_the_environment_is_refused_without_being_told() -> None:
    with pytest.raises(InputError, match=r"^ROOTSERVE_TOKEN: expected one token") as caught:
        CredentialFiles().read({"ROOTSERVE_TOKEN": f"{TOKEN}\n{TOKEN}"})
    assert TOKEN not in str(caught.value)


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    nowhere, text = tmp_path / "nowhere", tmp_path / "text"
    text.write_text("no PEM")
    for files, words in (
        (CredentialFiles(token=nowhere), "--token-file: .*nowhere cannot be read"),
        (CredentialFiles(ca=nowhere), "--tls-ca: .*nowhere cannot be read .No such file"),
        (CredentialFiles(ca=text), "--tls-ca: .*text has no readable certificate; expected PEM"),
        (CredentialFiles(certificate=text), "expected both --tls-cert and --tls-key"),
        (CredentialFiles(key=text), "expected both --tls-cert and --tls-key"),
        (CredentialFiles(certificate=text, key=text), "--tls-cert: .*no readable certificate"),
    ):
        with pytest.raises(InputError, match=words):
            files.read({})


def test_neither_a_repr_nor_a_report_tells_a_secret() -> None:
    credentials = Credentials(tls=True, key=b"secret-key", token=TOKEN)
    options = LoadOptions(model="m", concurrency=1, credentials=credentials)
    report = json.dumps(options.to_json())
    for text in (repr(credentials), repr(options), report):
        assert TOKEN not in text
        assert "secret-key" not in text
    assert json.loads(report)["tls"] is True
