"""Log lines stay lines whatever they carry, and refusals do not flood the log."""

import json
import logging
import math
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootserve.server.logs import HumanFormatter, JsonFormatter
from rootserve.server.observers.access_log import AccessLog
from rootserve.server.observers.events import Refusal
from rootserve.server.observers.refusal_log import INTERVAL_S, MAX_ID_LENGTH, RefusalLog
from rootserve.server.pending import Timeline
from rootserve.server.refusals import Reason
from tests.support.pending import pending

CYCLE: list[object] = []
CYCLE.append(CYCLE)


class Unshowable:
    def __str__(self) -> str:
        raise RuntimeError("no")


def record(text: str, *arguments: object, **fields: object) -> logging.LogRecord:
    return logging.getLogger("server.test").makeRecord(
        "server.test", logging.WARNING, __file__, 1, text, arguments, None, extra=fields
    )


def strict(line: str) -> dict[str, object]:
    """The JSON object of ``line``, which must be no more lenient than the standard."""

    def refuse(constant: str) -> object:
        raise AssertionError(f"{constant} is no JSON")

    content = json.loads(line, parse_constant=refuse)
    assert isinstance(content, dict)
    return content


def test_a_json_line_has_its_time_level_logger_message_and_fields() -> None:
    made = record("worker %s ended with status %d", "cpu-0", -9, worker="cpu-0", status=-9)
    made.created = 1_700_000_000.1234
    assert strict(JsonFormatter().format(made)) == {
        "time": "2023-11-14T22:13:20.123Z",
        "level": "warning",
        "logger": "server.test",
        "message": "worker cpu-0 ended with status -9",
        "worker": "cpu-0",
        "status": -9,
    }


def test_an_exception_is_one_field() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        made = record("failed")
        made.exc_info = sys.exc_info()
    line = JsonFormatter().format(made)
    assert "\n" not in line
    exception = strict(line)["exception"]
    assert isinstance(exception, str)
    assert exception.startswith("Traceback")
    assert exception.endswith("ValueError: two\nlines")


def test_a_field_never_takes_the_place_of_the_lines_own() -> None:
    made = record("true", time="never", level="none", exception="x")
    content = strict(JsonFormatter().format(made))
    assert content["level"] == "warning"
    assert (content["time_"], content["level_"], content["exception_"]) == ("never", "none", "x")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (0.5, 0.5),
        (True, True),
        (None, None),
        (2**64, str(2**64)),
        pytest.param(10**5000, "<int that cannot be shown>", id="huge"),
        (b"\x00", "b'\\x00'"),
        (Path("/a"), "/a"),
        (Reason.QUEUE_FULL, "queue_full"),
        ({1: {"a": (1, 2)}}, {"1": {"a": [1, 2]}}),
        ("\ud800", "?"),
        ("a\nb\u2028", "a\nb\u2028"),
        (CYCLE, [[[["[[...]]"]]]]),
        pytest.param(Unshowable(), "<Unshowable that cannot be shown>", id="unshowable"),
        ([Unshowable()], ["<Unshowable that cannot be shown>"]),
    ],
)
def test_odd_values_are_valid_json(value: object, expected: object) -> None:
    line = JsonFormatter().format(record("odd", value=value))
    assert line.isascii()
    assert "\n" not in line
    assert strict(line)["value"] == expected
    assert "\n" not in HumanFormatter().format(record("odd", value=value))


def test_a_message_with_the_wrong_arguments_is_still_json() -> None:
    content = strict(JsonFormatter().format(record("%d and %d", "one")))
    assert content["message"] == "%d and %d ('one',)"


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=8,
)


@given(st.text(), anything)
def test_whatever_comes_is_one_line(text: str, value: object) -> None:
    made = record("%s", text, value=value)
    assert len(JsonFormatter().format(made).splitlines()) == 1
    strict(JsonFormatter().format(made))
    assert len(HumanFormatter().format(made).splitlines()) == 1


def test_a_line_for_people_ends_with_its_fields() -> None:
    made = record(
        "worker %s ended", "cpu-0", worker="cpu-0", status=-9, id='a b=c"', device="cuda:0"
    )
    text = HumanFormatter().format(made)
    expected = (
        'WARNING server.test: worker cpu-0 ended worker=cpu-0 status=-9 id="a b=c\\"" device=cuda:0'
    )
    assert text.endswith(expected)


def test_a_stack_trace_for_people_follows_its_line() -> None:
    try:
        raise ValueError("why")
    except ValueError:
        made = record("failed", worker="cpu-0")
        made.exc_info = sys.exc_info()
    lines = HumanFormatter().format(made).splitlines()
    assert lines[0].endswith("failed worker=cpu-0")
    assert (lines[1], lines[-1]) == ("Traceback (most recent call last):", "ValueError: why")


class Told:
    """What a refusal log wrote, and the time it is told."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.lines: list[tuple[float, str, dict[str, object]]] = []
        self.log = RefusalLog(lambda: self.now_s)

    def refuse(
        self, reason: Reason, model: str = "nin-orig", request_id: str = "", message: str = "why"
    ) -> None:
        self.log.refused(Refusal(reason, message, "", 0.1, "", model=model, request_id=request_id))

    def counts(self) -> Counter[tuple[str, str]]:
        """Refusals by model and reason, as the lines tell them."""
        counted: Counter[tuple[str, str]] = Counter()
        for _, _, fields in self.lines:
            count = fields["count"]
            assert isinstance(count, int)
            if "reason" in fields:
                counted[str(fields.get("model", "")), str(fields["reason"])] += count
        return counted


@contextmanager
def told() -> Iterator[Told]:
    seen = Told()
    formatter = JsonFormatter()

    class Notes(logging.Handler):
        def emit(self, noted: logging.LogRecord) -> None:
            fields = strict(formatter.format(noted))
            seen.lines.append((seen.now_s, str(fields["message"]), fields))

    handler = Notes()
    logger = logging.getLogger("rootserve.server.observers.refusal_log")
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    try:
        yield seen
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


def test_a_refusal_is_told_with_its_fields() -> None:
    with told() as seen:
        seen.refuse(Reason.QUEUE_FULL, request_id="r-1", message="the queue is full")
    ((_, text, fields),) = seen.lines
    assert text == "request refused (queue_full): the queue is full"
    assert fields["level"] == "warning"
    assert (fields["request_id"], fields["model"], fields["reason"]) == (
        "r-1",
        "nin-orig",
        "queue_full",
    )


def test_what_was_suppressed_is_told_with_the_next_one() -> None:
    with told() as seen:
        for number in range(1_235):
            seen.refuse(Reason.DRAINING, request_id=f"r-{number}")
        seen.now_s += 5
        seen.refuse(Reason.DRAINING, request_id="last")
    assert len(seen.lines) == 2
    _, text, fields = seen.lines[1]
    assert text == "request refused (draining): why; and 1,234 more in the last 5 s"
    assert (fields["count"], fields["request_id"]) == (1235, "last")


def test_what_was_suppressed_is_told_even_if_nothing_more_is_refused() -> None:
    with told() as seen:
        for number in range(3):
            seen.refuse(Reason.INVALID_REQUEST, request_id=f"r-{number}")
        seen.log.catch_up()
        assert len(seen.lines) == 1, "a second has not passed"
        seen.now_s += 1
        seen.log.catch_up()
        seen.log.catch_up()
    assert len(seen.lines) == 2
    _, text, fields = seen.lines[1]
    assert text == "2 more refused (invalid_request) in the last 1 s"
    assert (fields["count"], fields["request_id"]) == (2, "r-2")


def test_the_end_tells_of_all_classes_in_one_line() -> None:
    with told() as seen:
        for _ in range(4):
            seen.refuse(Reason.WORKER_LOST)
        for _ in range(3):
            seen.refuse(Reason.UNKNOWN_MODEL, model="")
        seen.log.close()
        seen.log.close()
    assert len(seen.lines) == 3
    _, text, fields = seen.lines[2]
    assert text == "before the end 5 more were refused: worker_lost nin-orig: 3, unknown_model: 2"
    assert (fields["level"], fields["count"]) == ("error", 5)
    assert fields["by_class"] == {"worker_lost nin-orig": 3, "unknown_model": 2}


@pytest.mark.parametrize(
    ("level", "reasons"),
    [
        ("info", "invalid_request unknown_model cancelled deadline_lost deadline_expired"),
        ("warning", "queue_full model_not_ready draining"),
        ("error", "model_failure worker_lost"),
    ],
)
def test_a_callers_mistake_is_no_alarm(level: str, reasons: str) -> None:
    with told() as seen:
        for reason in reasons.split():
            seen.refuse(Reason(reason))
    assert {fields["level"] for _, _, fields in seen.lines} == {level}
    assert len(seen.lines) == len(reasons.split())


@pytest.mark.parametrize("reason", [Reason.INVALID_REQUEST, Reason.UNKNOWN_MODEL])
def test_what_a_caller_made_up_is_not_told(reason: Reason) -> None:
    with told() as seen:
        seen.refuse(reason, message="model 'made-up' is not one of ...")
    assert "made-up" not in str(seen.lines)


def test_a_request_id_is_told_in_printable_characters_and_bounded() -> None:
    with told() as seen:
        seen.refuse(Reason.CANCELLED, request_id="a\n\x1b[31m\u202eb")
        seen.refuse(Reason.DRAINING, request_id="x" * 10_000)
        seen.refuse(Reason.DRAINING, request_id="y" * 10_000)
        seen.now_s += 2
        seen.log.catch_up()
    ids = [fields["request_id"] for _, _, fields in seen.lines]
    assert ids == ["a??[31m?b", "x" * MAX_ID_LENGTH + "...", "y" * MAX_ID_LENGTH + "..."]


steps = st.lists(
    st.tuples(
        st.sampled_from(["", "nin-orig", "nin-root-16"]),
        st.sampled_from([Reason.INVALID_REQUEST, Reason.QUEUE_FULL, Reason.WORKER_LOST]),
        st.sampled_from([0.0, 0.001, 0.4, 0.999, 1.0, 1.7]) | st.floats(0, 3),
        st.booleans(),
    ),
    max_size=80,
)


@given(steps)
def test_never_more_than_one_line_per_class_each_second_and_the_counts_add_up(
    events: list[tuple[str, Reason, float, bool]],
) -> None:
    refused: Counter[tuple[str, str]] = Counter()
    with told() as seen:
        for model, reason, pause_s, catch_up in events:
            seen.refuse(reason, model)
            refused[model, reason.value] += 1
            seen.now_s += pause_s
            if catch_up:
                seen.log.catch_up()
        before_the_end = list(seen.lines)
        seen.log.close()
    last: dict[tuple[str, str], float] = defaultdict(lambda: -INTERVAL_S)
    for at_s, _, fields in before_the_end:
        key = str(fields.get("model", "")), str(fields["reason"])
        assert at_s - last[key] >= INTERVAL_S
        last[key] = at_s
    told_of = seen.counts()
    for _, _, fields in seen.lines[len(before_the_end) :]:
        by_class = fields["by_class"]
        assert isinstance(by_class, dict)
        for name, count in by_class.items():
            reason_name, _, model = name.partition(" ")
            told_of[model, reason_name] += count
    assert len(seen.lines) - len(before_the_end) <= 1
    assert told_of == refused


def access_lines(caplog: pytest.LogCaptureFixture, log: AccessLog) -> list[dict[str, object]]:
    """What ``log`` writes of two answers, one of them slow, and of a refusal."""
    asked = pending(3, request_id="a\n1")
    asked.method, asked.peer = "/inference.GRPCInferenceService/ModelInfer", "ipv4:127.0.0.1:1"
    quick = Timeline(1_000_000, 0, 2_000_000, 3_500_000, 8, "cpu-0", "fake", "fp32")
    with caplog.at_level(logging.INFO, "rootserve.server.observers.access_log"):
        log.answered(asked, quick)
        log.answered(asked, quick._replace(total_ns=200_000_000))
        log.refused(
            Refusal(Reason.QUEUE_FULL, "", "RESOURCE_EXHAUSTED", 0.25, "M", model="nin-orig")
        )
    formatter = JsonFormatter()
    return [strict(formatter.format(record)) for record in caplog.records]


def test_the_access_log_tells_every_request_with_its_timeline(
    caplog: pytest.LogCaptureFixture,
) -> None:
    first, second, refused = access_lines(caplog, AccessLog(every=True, slow_s=math.inf))
    assert (first["level"], second["level"]) == ("info", "info")
    assert first["message"] == "answered nin-root-16 in 3.5 ms"
    timeline = {"queue_ms": 1.0, "compute_ms": 2.0, "total_ms": 3.5, "batch_rows": 8}
    assert timeline.items() <= first.items()
    assert (first["request_id"], first["rows"], first["peer"]) == ("a?1", 3, "ipv4:127.0.0.1:1")
    assert "trace_id" not in first
    assert (refused["code"], refused["total_ms"]) == ("RESOURCE_EXHAUSTED", 250.0)


def test_the_log_of_slow_requests_tells_those_alone(caplog: pytest.LogCaptureFixture) -> None:
    (line,) = access_lines(caplog, AccessLog(every=False, slow_s=0.2))
    assert line["level"] == "warning"
    assert line["message"] == "slow request: nin-root-16 in 200.0 ms"
