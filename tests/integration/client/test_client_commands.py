"""The command line against a fake server: what it prints, where, and its exit codes."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from PIL import Image

from rootserve.client.images import read_image
from tests.integration.client.fake_rootserve import WEIGHTS, FakeRootserve
from tests.support.plain import assert_plain

Rootserve = Callable[..., tuple[int, str, str]]
QUICK = ("--duration", 0.3, "--warmup", 0.05, "--model", "nin-orig")


def test_models_table(rootserve: Rootserve, fake: FakeRootserve) -> None:
    code, out, err = rootserve("models", "--server", fake.address)
    assert (code, err) == (0, "")
    assert_plain(out)
    header, orig, root, failed = out.splitlines()
    assert header.split() == ["model", "state", "engine", "batch", "params", "MACs", "top-1"]
    assert orig.split() == [
        "nin-orig", "ready", "fake", "fp32", "8", "966,986", "222.5", "M", "91.25%",
    ]  # fmt: skip
    assert root.split() == ["nin-root-4", "unloaded", "-", "-", "700,000", "150.0", "M", "-"]
    assert "failed" in failed


def test_which_weights_are_live(rootserve: Rootserve, fake: FakeRootserve) -> None:
    code, out, err = rootserve("models", "--weights", "--server", fake.address)
    assert (code, err) == (0, "")
    assert_plain(out)
    header, orig, root, _ = out.splitlines()
    assert header.split() == ["model", "state", "version", "weights", "loads", "top-1"]
    assert orig.split() == ["nin-orig", "ready", "2", WEIGHTS[:12], "2", "91.25%"]
    assert root.split() == ["nin-root-4", "unloaded", "-", "untrained", "0", "-"]


def test_models_json(rootserve: Rootserve, fake: FakeRootserve) -> None:
    code, out, _ = rootserve("models", "--json", "--server", fake.address)
    assert code == 0
    orig, root, _ = json.loads(out)
    paper = {"accuracy": 0.9211, "cpu_ms": 39.0, "gpu_ms": 0.623, "top5_accuracy": None}
    assert orig["paper"] == paper
    kept = ("name", "family", "topology", "params", "macs", "flops_paper", "accuracy", "trained")
    assert [root[key] for key in kept] == [
        "nin-root-4", "nin", "root", 700_000, 150_000_000, 150_100_000, None, False,
    ]  # fmt: skip
    assert (root["engine"], root["precision"], root["state"]) == (None, None, "unloaded")
    assert (orig["version"], orig["weights_sha256"], orig["generation"]) == ("2", WEIGHTS, 2)


def test_server_comes_from_the_environment(
    rootserve: Rootserve, fake: FakeRootserve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROOTSERVE_SERVER", fake.address)
    assert rootserve("health")[0] == 0


def test_health(rootserve: Rootserve, fake: FakeRootserve) -> None:
    code, out, _ = rootserve("health", "--server", fake.address)
    assert code == 0
    assert_plain(out)
    assert "server  SERVING" in out
    assert "weights [do not] fit" in out
    assert "1 more known and not loaded" in out


def test_health_of_a_server_that_is_not_serving(rootserve: Rootserve, fake: FakeRootserve) -> None:
    fake.health = "NOT_SERVING"
    code, out, _ = rootserve("health", "--server", fake.address)
    assert code == 1
    assert "server  NOT_SERVING" in out


@pytest.mark.parametrize(
    ("model", "code", "line"),
    [
        ("nin-orig", 0, "nin-orig  SERVING (ready)\n"),
        ("nin-root-4", 1, "nin-root-4  NOT_SERVING (unloaded)\n"),
        ("nin-root-8", 1, "nin-root-8  NOT_SERVING (failed)  weights [do not] fit\n"),
    ],
)
def test_health_of_a_model(
    rootserve: Rootserve, fake: FakeRootserve, model: str, code: int, line: str
) -> None:
    assert rootserve("health", model, "--server", fake.address) == (code, line, "")


def test_infer(rootserve: Rootserve, fake: FakeRootserve, cat_path: Path) -> None:
    code, out, err = rootserve(
        "infer", cat_path, cat_path, "--model", "nin-orig", "--top", 2, "--server", fake.address
    )
    assert (code, err) == (0, "")
    assert out.count("cat.png") == 2
    assert out.count("label-") == 4
    assert "69.0" in out  # e^3 / (e^3 + 9)
    assert "queue 100 µs, batch wait 200 µs, compute 300 µs" in " ".join(out.split())
    assert "random weights" not in out
    (request,) = fake.requests
    (tensor,) = request.inputs
    assert (tensor.name, tensor.datatype, list(tensor.shape)) == ("encoded", "BYTES", [2])
    assert request.raw_input_contents[0].count(cat_path.read_bytes()) == 2


def test_infer_json(rootserve: Rootserve, fake: FakeRootserve, cat_path: Path) -> None:
    code, out, _ = rootserve(
        "infer", cat_path, "-m", "nin-orig", "--json", "--server", fake.address
    )
    assert code == 0
    report = json.loads(out)
    (image,) = report["images"]
    best = image["top"][0]
    assert image["file"] == str(cat_path)
    assert best["class"] == f"label-{best['index']}"
    assert best["index"] == read_image(cat_path, 32)[0, 0, 0] % 10
    assert len(image["top"]) == 5
    assert report["timeline"]["engine"] == "fake"
    assert report["trained"] is True


def test_infer_says_of_random_weights_that_they_know_nothing(
    rootserve: Rootserve, fake: FakeRootserve, cat_path: Path
) -> None:
    fake.served.add("nin-root-4")
    command = ("infer", cat_path, "-m", "nin-root-4", "--server", fake.address)
    code, out, _ = rootserve(*command)
    assert code == 0
    assert_plain(out)
    assert "nin-root-4 has random weights: this says nothing" in out
    assert json.loads(rootserve(*command, "--json")[1])["trained"] is False


def test_infer_names_the_file_that_the_server_refuses(
    rootserve: Rootserve, fake: FakeRootserve, cat_path: Path, tmp_path: Path
) -> None:
    fake.fail = lambda _: grpc.StatusCode.INVALID_ARGUMENT
    fake.words = "tensor encoded: row 1: the picture is damaged: image file is truncated"
    bad = tmp_path / "bad.png"
    bad.write_bytes(cat_path.read_bytes()[:900])
    arguments = ("infer", cat_path, bad, "-m", "nin-orig", "--server", fake.address)
    code, out, err = rootserve(*arguments)
    assert (code, out) == (2, "")
    assert err == f"rootserve: {bad}: the picture is damaged: image file is truncated\n"
    fake.words = "something else"
    assert rootserve(*arguments)[::2] == (3, "rootserve: INVALID_ARGUMENT: something else\n")


LOAD = ("load", "--model", "nin-orig")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((*LOAD,), ["neither --concurrency nor --rate"]),
        ((*LOAD, "-c", 1, "-r", 1), ["both --concurrency and --rate"]),
        ((*LOAD, "-c", 1, "--distribution", "poisson"), ["--distribution without --rate"]),
        ((*LOAD, "-c", 1, "--max-in-flight", 2), ["--max-in-flight without --rate"]),
        ((*LOAD, "-r", 1, "--distribution", "normal"), ["normal", "poisson or constant"]),
        ((*LOAD, "-c", 0), ["concurrency 0", "expected 1"]),
        ((*LOAD, "-r", "nan"), ["--rate nan", "no number"]),
        ((*LOAD, "-r", -1), ["rate -1"]),
        ((*LOAD, "-c", 1, "--duration", 0), ["duration 0", "seconds"]),
        ((*LOAD, "-c", 1, "--rows", 0), ["rows 0"]),
        ((*LOAD, "-c", 1, "--slo-p99-ms", 0), ["--slo-p99-ms 0"]),
        ((*LOAD, "-c", "1", "--replay", "/nowhere.csv"), ["both --concurrency and --replay"]),
        ((*LOAD, "--replay", "/nowhere.csv"), ["/nowhere.csv: cannot be read", "at_s"]),
        ((*LOAD, "-c", "4:1"), ["--concurrency 4:1", "FROM:TO"]),
        ((*LOAD, "-r", "5..x"), ["rate 5..x", "FROM..TO"]),
        ((*LOAD, "-c", 1, "--rows", "1=0"), ["--rows", "weight 0"]),
        ((*LOAD, "-c", 1, "--processes", 2), ["processes 2", "1 callers"]),
        ((*LOAD, "-c", 1, "--stable", 0), ["--stable 0", "percent"]),
        ((*LOAD, "-r", "1..5", "--stable", 5), ["stable", "steady rate"]),
        ((*LOAD, "-c", 1, "--max-trials", 5), ["--max-trials without --stable"]),
        ((*LOAD, "--find-max"), ["--find-max without --slo-p99-ms"]),
        ((*LOAD, "--find-max", "-c", 1), ["--find-max with --concurrency"]),
        ((*LOAD, "--find-max", "-r", "1..5", "--slo-p99-ms", 5), ["steady rate"]),
        ((*LOAD, "-c", "1,2", "--versus", "b"), ["a sweep together with"]),
        ((*LOAD, "-c", 1, "--versus", "nin-orig"), ["--versus nin-orig: is what it is"]),
        ((*LOAD, "-c", 1, "--rounds", 2), ["--rounds without --versus"]),
        ((*LOAD, "-c", 1, "--html", "/nowhere/page.html"), ["/nowhere/page.html", "folder"]),
        (("compare", "/nowhere.json", "/nowhere.json"), ["/nowhere.json"]),
        ((*LOAD, "-c", "many"), ["--concurrency many", "no number"]),
        ((*LOAD, "-c", 1, "--data", "/nowhere"), ["/nowhere: no such file", "parquet"]),
        ((*LOAD, "-c", 1, "--json", "/nowhere/report.json"), ["/nowhere/report.json", "folder"]),
        (("infer", "/nowhere.png", "--model", "nin-orig"), ["/nowhere.png: no such file", "PNG"]),
        (("infer", "--model", "nin-orig"), ["IMAGE"]),
        (("models", "--server", "localhost"), ["'localhost'", "HOST:PORT"]),
        (("models", "--server", "http://localhost:8001"), ["HOST:PORT"]),
        (("lood",), ["lood"]),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    rootserve: Rootserve,
    fake: FakeRootserve,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[object, ...],
    words: list[str],
) -> None:
    monkeypatch.setenv("ROOTSERVE_SERVER", fake.address)
    code, out, err = rootserve(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("rootserve: ")
    assert err.count("\n") == 1
    for word in words:
        assert word in err
    assert fake.requests == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("health",),
        ("models",),
        ("infer", "cat.png", "--model", "nin-orig"),
        ("load", "--model", "nin-orig", "-c", 1),
    ],
)
def test_unreachable_is_one_line_and_exit_code_3(
    rootserve: Rootserve, nobody: str, arguments: tuple[object, ...]
) -> None:
    code, out, err = rootserve(*arguments, "--server", nobody)
    assert (code, out) == (3, "")
    assert err == (
        f"rootserve: no gRPC server answers at {nobody}; is rootserve-server running there?\n"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("health", "resnet"),
        ("infer", "cat.png", "--model", "resnet"),
        ("load", "--model", "resnet", "-c", 1),
    ],
)
def test_unknown_model_is_one_line_and_exit_code_3(
    rootserve: Rootserve, fake: FakeRootserve, arguments: tuple[object, ...]
) -> None:
    code, _, err = rootserve(*arguments, "--server", fake.address)
    assert code == 3
    assert err == (
        "rootserve: NOT_FOUND: no model 'resnet'; "
        "the server knows nin-orig, nin-root-4, nin-root-8\n"
    )


def test_a_model_whose_name_is_misspelt_is_told_the_nearest(
    rootserve: Rootserve, fake: FakeRootserve
) -> None:
    code, _, err = rootserve("load", "-m", "nin-rot-4", "-c", 1, "--server", fake.address)
    assert code == 3
    assert err.endswith("nin-orig, nin-root-4, nin-root-8; did you mean nin-root-4?\n")


def test_help_may_stand_behind_the_connection(rootserve: Rootserve) -> None:
    for command in (("--help",), ("analyze", "--help"), ("analyze", "profile", "--help")):
        code, out, err = rootserve("--server", "host:1", *command)
        assert (code, err) == (0, "")
        assert "Usage: rootserve" in out


def test_words_of_the_server_stay_one_line(
    rootserve: Rootserve, fake: FakeRootserve, cat_path: Path
) -> None:
    fake.fail = lambda _: grpc.StatusCode.INTERNAL
    code, _, err = rootserve("infer", cat_path, "-m", "nin-orig", "--server", fake.address)
    assert code == 3
    assert err == "rootserve: INTERNAL: as the test wishes in two lines\n"


def test_no_arguments_print_the_help(rootserve: Rootserve) -> None:
    code, out, _ = rootserve()
    assert code == 2
    assert "Exit codes:" in out
    assert_plain(out)


def test_output_that_cannot_be_written_is_one_line(fake: FakeRootserve) -> None:
    command = [sys.executable, "-m", "rootserve.client", "models", "--server", fake.address]
    with open("/dev/full", "w") as full:  # noqa: PTH123 - a device
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)  # noqa: PLW1510
    words = "rootserve: the output cannot be written (No space left on device)\n"
    assert (done.returncode, done.stderr) == (2, words)


def test_a_reader_who_goes_is_no_missed_objective(fake: FakeRootserve) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "rootserve.client", "models", "--server", fake.address]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60)  # noqa: PLW1510
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_fault_of_its_own_is_no_missed_objective(
    rootserve: Rootserve, fake: FakeRootserve, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a slip of ours")

    monkeypatch.setattr("rootserve.client.commands.models.print_models", broken)
    code, out, err = rootserve("models", "--server", fake.address)
    assert (code, out) == (70, "")
    assert "ZeroDivisionError: a slip of ours" in err
    assert err.endswith("a fault of rootserve itself; please report it with the lines above\n")


def test_the_connection_may_be_told_before_the_command(
    rootserve: Rootserve, fake: FakeRootserve, nobody: str
) -> None:
    for before in (("--server", fake.address), (f"--server={fake.address}",)):
        code, out, err = rootserve(*before, "models", "--json")
        assert (code, err) == (0, "")
        assert len(json.loads(out)) == 3
    # What stands behind the command counts.
    assert rootserve("--server", nobody, "health", "--server", fake.address)[0] == 0
    code, _, err = rootserve("--tls", "--server", nobody, "analyze", "datasets")
    assert code == 3
    assert f"no TLS connection to {nobody}" in err
    code, _, err = rootserve("--server", nobody, "compare", "a.json", "b.json")
    assert (code, err) == (
        2,
        "rootserve: No such option: --server (see 'rootserve compare --help')\n",
    )
    assert rootserve("--server", nobody)[0] == 2


def test_the_list_of_commands_is_not_cut(rootserve: Rootserve) -> None:
    _, out, _ = rootserve("--help")
    assert "..." not in out.replace("[ARGS]...", "")
    assert "with an interval where the reports tell one" in " ".join(out.split())


def test_many_pictures_are_sent_in_several_requests(
    rootserve: Rootserve,
    fake: FakeRootserve,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As many as the server takes in one, and as fit a message; each keeps its place and its name."""
    files = []
    for n in range(130):
        files.append(tmp_path / f"{n}.png")
        Image.new("RGB", (32, 32), (n % 10, 0, 0)).save(files[-1])
    code, out, _ = rootserve("infer", *files, "-m", "nin-orig", "--json", "--server", fake.address)
    assert code == 0
    report = json.loads(out)
    assert [image["top"][0]["index"] for image in report["images"]] == [n % 10 for n in range(130)]
    assert [image["file"] for image in report["images"]] == [str(file) for file in files]
    assert report["requests"] == 3
    assert report["timeline"] is None
    assert [request.inputs[0].shape[0] for request in fake.requests] == [64, 64, 2]

    fake.requests.clear()
    sent = [file.read_bytes() for file in files]
    monkeypatch.setattr("rootserve.client.commands.infer._MOST_BYTES", 3 * max(map(len, sent)))
    fake.words = "tensor encoded: row 1: is damaged: so the test says"
    fake.fail = lambda number: grpc.StatusCode.INVALID_ARGUMENT if number == 1 else None
    code, _, err = rootserve("infer", *files[:8], "-m", "nin-orig", "--server", fake.address)
    assert [request.inputs[0].shape[0] for request in fake.requests] == [3, 3]
    assert (code, err) == (2, f"rootserve: {files[4]}: is damaged: so the test says\n")


def test_a_command_may_wait_until_the_server_serves(
    rootserve: Rootserve, fake: FakeRootserve, nobody: str
) -> None:
    fake.health = "NOT_SERVING"
    code, _, err = rootserve("models", "--wait", 0.5, "--server", fake.address)
    assert code == 3
    assert f"the server at {fake.address} is NOT_SERVING" in err
    threading.Timer(1.0, setattr, (fake, "health", "SERVING")).start()
    code, out, _ = rootserve("--wait", 60, "models", "--json", "--server", fake.address)
    assert (code, fake.health) == (0, "SERVING")
    assert len(json.loads(out)) == 3
    code, _, err = rootserve("models", "--wait", 0.5, "--server", nobody)
    assert code == 3
    assert "no gRPC server answers" in err


def test_the_only_model_that_is_served_needs_no_name(
    rootserve: Rootserve, fake: FakeRootserve, cat_path: Path
) -> None:
    code, out, _ = rootserve("infer", cat_path, "--json", "--server", fake.address)
    assert (code, json.loads(out)["model"]) == (0, "nin-orig")
    code, out, _ = rootserve("load", *QUICK[:4], "-c", 1, "--server", fake.address)
    assert code == 0
    assert out.startswith("nin-orig, closed loop")
    fake.served.add("nin-root-4")
    for command in (("infer", cat_path), ("load", "-c", 1)):
        code, _, err = rootserve(*command, "--server", fake.address)
        assert code == 2
        assert "expected one of those that the server serves (nin-orig, nin-root-4)" in err
