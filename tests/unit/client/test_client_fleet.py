"""Several servers as one view."""

from rich.console import Console

from rootserve.client.top.fleet import ServerView, models_of, render_fleet
from rootserve.client.top.rates import ModelRow, View, WorkerRow


def row(model: str, rate: float | None, p99_s: float | None, weights: str, **more: int) -> ModelRow:
    return ModelRow(
        model=model,
        ready=more.get("ready", 1) == 1,
        requests_per_s=rate,
        rows_per_s=None if rate is None else 2 * rate,
        p50_s=None,
        p99_s=p99_s,
        batch_rows=None,
        queued_rows=more.get("queued", 0),
        in_flight_rows=1,
        refused_per_s=0.0,
        weights=weights,
    )


def view(*rows: ModelRow, serving: bool = True) -> View:
    workers = [WorkerRow("cpu-0", "cpu", True, 0.25, 0, None)]
    return View("1", serving, 0.0, 2.0, rows, workers)


SERVERS = [
    ServerView("a:1", view(row("m", 10.0, 0.01, "aaaa", queued=3), row("n", None, None, "cccc"))),
    ServerView("b:1", view(row("m", 30.0, 0.04, "bbbb", ready=0), serving=False)),
    ServerView("c:1", view(row("m", 1000.0, 9.0, "dddd")), "no gRPC server answers at c:1"),
]


def test_models_are_added_up_over_the_servers_that_can_be_read() -> None:
    of_m, of_n = models_of(SERVERS)
    assert (of_m.model, of_m.ready, of_m.servers) == ("m", 1, 2)
    assert (of_m.requests_per_s, of_m.rows_per_s, of_m.p99_s) == (40.0, 80.0, 0.04)
    assert (of_m.queued_rows, of_m.in_flight_rows) == (3, 2)
    assert of_m.weights == {"aaaa": ["a:1"], "bbbb": ["b:1"]}
    assert (of_n.requests_per_s, of_n.p99_s) == (None, None)


def test_what_is_wrong_is_told() -> None:
    screen = Console(width=80, color_system=None)
    with screen.capture() as captured:
        screen.print(render_fleet(SERVERS))
    text = captured.get()
    assert "rootserve: 3 servers  1 serving" in text
    lines = {line.split()[0]: line.split() for line in text.splitlines() if line.strip()}
    assert lines["a:1"][1:] == ["serving", "10.0", "20.0", "10.0", "ms", "3", "25%", "0"]
    assert lines["b:1"][1:4] == ["not", "serving", "30.0"]
    assert ["c:1", "unreachable", *["-"] * 6] in [line.split() for line in text.splitlines()]
    assert "weights of m differ: aaaa on a:1; bbbb on b:1" in text
    assert "c:1: no gRPC server answers at c:1" in text
    assert max(map(len, text.splitlines())) <= 80


def test_a_line_of_json_has_a_server_as_it_would_be_alone() -> None:
    gone = SERVERS[2].to_json()
    assert gone == {"server": "c:1", "error": "no gRPC server answers at c:1"}
    there = SERVERS[0].to_json()
    assert (there["server"], there["error"], there["models"][0]["model"]) == ("a:1", None, "m")
