"""The runner of other people's clients: what it calls a fault, and the page it writes."""

import shlex
from pathlib import Path

import pytest

from benchmarks.clients import __main__ as clients
from benchmarks.clients import running
from benchmarks.clients.catalog import CLIENTS, Client, Command

PAGE = Path(__file__).parents[3] / "docs" / "clients.md"
MARKED = "a\n<!-- {0}: written -->\nold\n<!-- end of {0} -->\nb\n"


def client(*codes: str, expected: str = "", shown: str = "") -> Client:
    """One that runs each of ``codes`` by Python."""
    commands = (
        Command(f"python -c {shlex.quote(code)} {{address}}", expected, shown) for code in codes
    )
    return Client("some", "own", "python -c \"print('some v1.2')\"", "all", tuple(commands))


def run(made: Client, folder: Path) -> running.Outcome:
    return running.run(made, folder, {"address": "there:1"})


def test_a_client_that_does_all_it_should_works(tmp_path: Path) -> None:
    outcome = run(client("import sys; print('hello', sys.argv[1])", expected="hello"), tmp_path)
    assert (outcome.fault, outcome.version) == (None, "1.2")
    assert outcome.transcript.splitlines()[1:] == ["hello there:1"]
    assert outcome.transcript.startswith("$ python -c ")


@pytest.mark.parametrize(
    ("code", "expected", "fault"),
    [
        ("raise ValueError('no cat')", "", "exit status 1: ValueError: no cat"),
        ("print('dog')", "cat", "'dog' came, expected 'cat'"),
        ("pass", "cat", "'nothing was printed' came, expected 'cat'"),
    ],
)
def test_a_fault_is_told_with_what_came(
    tmp_path: Path, code: str, expected: str, fault: str
) -> None:
    outcome = run(client(code, "print('never')", expected=expected), tmp_path)
    assert outcome.fault == fault
    assert "never" not in outcome.transcript.splitlines()
    assert f"| does not: {fault} |" in clients.table([outcome])


def test_a_command_that_does_not_end_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "_MOST_S", 1.0)
    outcome = run(client("import time; print('begun', flush=True); time.sleep(100)"), tmp_path)
    assert outcome.fault == "no end after 1 s"
    assert "begun" in outcome.transcript


def test_only_the_lines_that_are_wanted_are_shown(tmp_path: Path) -> None:
    outcome = run(client("print('one\\ntwo\\nthree')", shown="^t"), tmp_path)
    assert outcome.transcript.splitlines()[1:] == ["two", "three"]


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    assert running.missing(client("pass"), tmp_path) == "python"
    (tmp_path / "own").mkdir()
    assert running.missing(client("pass"), tmp_path) is None
    other = Client("other", "own", "", "", (Command("no-such-program {address}"),))
    assert running.missing(other, tmp_path) == "no-such-program"


def test_a_part_of_a_page_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(MARKED.format("table"))
    clients.replace(page, {"table": r"new \1"})
    assert page.read_text() == MARKED.format("table").replace("old", "\nnew \\1\n")
    with pytest.raises(ValueError, match="0 pairs of marks of 'transcripts', expected 1"):
        clients.replace(page, {"transcripts": "new"})


def test_the_page_tells_of_every_client() -> None:
    page = PAGE.read_text()
    for made in CLIENTS:
        assert f"| {made.name} |" in page
        assert f"\n### {made.name}\n" in page
    for script in (PAGE.parents[1] / "benchmarks" / "clients").glob("*_client.*"):
        assert any(script.name in command.line for made in CLIENTS for command in made.commands)
