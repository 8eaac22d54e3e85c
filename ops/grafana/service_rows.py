"""The rows of the dashboard that tell how callers are served."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row
from panels import (
    BATCHES,
    IMAGES,
    ORANGE,
    RED,
    ROWS,
    TIMES,
    About,
    density,
    lines,
    number,
    yes_or_no,
)
from promql import NO_DEADLINES, NO_REQUESTS, OK, RECORDED, M, mean, quantile, rate


def callers(board: Dashboard) -> None:
    """Are callers served well?"""
    board.with_row(Row("Are callers served well?"))
    board.with_panel(
        yes_or_no(
            About(
                "Serving",
                "What grpc.health.v1 says; of several servers the worst.",
                "none",
                "No server is scraped",
                4,
                4,
            ),
            "min(rootserve_serving)",
            "yes",
            "no",
        )
    )
    board.with_panel(
        number(
            About(
                "Alerts",
                "Alerts of ops/prometheus/rules that fire; see docs/runbooks.md.",
                "none",
                "No server is scraped",
                4,
                4,
            ),
            'count(ALERTS{alertname=~"Rootserve.*", alertstate="firing"}) or vector(0)',
            [(1, RED)],
        )
    )
    board.with_panel(
        number(
            About(
                "Answers", "Answered requests per second.", "reqps", "No server is scraped", 4, 4
            ),
            f"sum(rate(rootserve_request_seconds_count{{{OK}}}[$__rate_interval]))",
            decimals=1,
        )
    )
    board.with_panel(
        number(
            About(
                "Not answered",
                "Share of requests of the last 5 minutes that the server should have answered "
                "and did not, in the worst model. What the caller cancelled or sent wrong does "
                "not count. The objective is 0.1 %.",
                "percentunit",
                "No requests in the last 5 minutes",
                4,
                4,
            ),
            f"max(rootserve:unavailable:ratio_rate5m{{{RECORDED}}}) >= 0",
            [(0.001, ORANGE), (0.0144, RED)],
            2,
        )
    )
    board.with_panel(
        number(
            About("p50", "Half of the answers came sooner.", "s", NO_REQUESTS, 4, 4),
            quantile(0.5, "rootserve_request_seconds", OK),
            [(0.1, ORANGE)],
            2,
        )
    )
    board.with_panel(
        number(
            About(
                "p99",
                "99 of 100 answers came sooner. The objective is 100 ms.",
                "s",
                NO_REQUESTS,
                4,
                4,
            ),
            quantile(0.99, "rootserve_request_seconds", OK),
            [(0.1, RED)],
            2,
        )
    )
    board.with_panel(
        lines(
            About(
                "Requests",
                "By outcome: ok, or the reason of the refusal.",
                "reqps",
                "No request yet",
            ),
            {"{{outcome}}": rate("rootserve_request_seconds_count", M, "outcome")},
            stacked=True,
        )
    )
    board.with_panel(
        lines(
            About(
                "Latency of answers",
                "From arrival to answer, in the server. Points are traces, if they are on.",
                "s",
                NO_REQUESTS,
            ),
            {
                f"p{100 * q:g}": quantile(q, "rootserve_request_seconds", OK)
                for q in (0.5, 0.9, 0.99)
            },
            exemplars=True,
            limit=0.1,
        )
    )
    board.with_panel(
        lines(
            About("p99 by model", "99 of 100 answers of a model came sooner.", "s", NO_REQUESTS),
            {"{{model}}": quantile(0.99, "rootserve_request_seconds", OK, "le, model")},
            limit=0.1,
        )
    )
    board.with_panel(
        lines(
            About(
                "Refusals and drops",
                "Requests without an answer, by reason.",
                "reqps",
                "All is well: no request was refused or dropped",
            ),
            {"{{reason}}": rate("rootserve_refusals_total", 'model=~"$model|"', "reason") + " > 0"},
        )
    )
    board.with_panel(
        lines(
            About(
                "Missed deadlines",
                "Requests dropped because their deadline had passed: when they came, or while "
                "they waited.",
                "reqps",
                "All is well: no deadline was missed",
            ),
            {
                "{{model}}, {{stage}}": rate("rootserve_deadline_misses_total", M, "model, stage")
                + " > 0"
            },
        )
    )
    board.with_panel(
        lines(
            About(
                "Error budget burn, 1 hour",
                "How many times faster than allowed the budget of 30 days is spent: 0.1 % not "
                "answered, 1 % slower than 100 ms, 1 % of deadlines not kept. At 14.4 somebody is "
                "called.",
                TIMES,
                "No requests in the last hour",
            ),
            {
                "{{model}} not answered": f"rootserve:unavailable:ratio_rate1h{{{RECORDED}}} / 0.001 >= 0",
                "{{model}} slow": f"rootserve:slow:ratio_rate1h{{{RECORDED}}} / 0.01 >= 0",
                "{{model}} deadlines": f"rootserve:unattained:ratio_rate1h{{{RECORDED}}} / 0.01 >= 0",
            },
            limit=14.4,
        )
    )


def time(board: Dashboard) -> None:
    """Where does the time go?"""
    request = mean("rootserve_request_seconds", OK)
    queue, wait = mean("rootserve_queue_seconds"), mean("rootserve_batch_wait_seconds")
    board.with_row(Row("Where does the time go?"))
    board.with_panel(
        lines(
            About(
                "Mean time of an answer",
                "What an answered request waited for, on average.",
                "s",
                NO_REQUESTS,
            ),
            {
                "queue": queue,
                "batch wait": wait,
                "compute and hand-over": f"{request} - {queue} - {wait}",
            },
            stacked=True,
        )
    )
    stages = {"queue": "queue", "batch wait": "batch_wait", "compute, per batch": "compute"}
    board.with_panel(
        lines(
            About(
                "p99 of each stage",
                "They do not add up: the slowest request of one stage is not that of another.",
                "s",
                NO_REQUESTS,
            ),
            {name: quantile(0.99, f"rootserve_{stage}_seconds") for name, stage in stages.items()},
        )
    )
    board.with_panel(
        density(
            About(
                "Latency of all answers",
                "How many answers took how long; the key below tells what a colour stands for.",
                "s",
                NO_REQUESTS,
            ),
            f"sum by (le) (increase(rootserve_request_seconds_bucket{{{OK}}}[$__rate_interval]))",
        )
    )


def deadlines(board: Dashboard) -> None:
    """Deadlines and accuracy."""
    offered = f'{M}, deadline="yes", result!="cancelled"'
    in_time = f'{M}, deadline="yes", result="in_time"'
    of_offered = f"(({rate('rootserve_offered_total', offered, 'model')}) > 0)"
    accuracy = rate("rootserve_accuracy_in_time_total", f'{M}, deadline="yes"', "model")
    board.with_row(Row("Are deadlines kept, and how accurately?"))
    board.with_panel(
        lines(
            About(
                "Attainment",
                "Of the requests with a deadline, the share answered within it; refused and expired "
                "ones are in what was offered. The objective is 99 %.",
                "percentunit",
                NO_DEADLINES,
            ),
            {"{{model}}": f"{rate('rootserve_offered_total', in_time, 'model')} / {of_offered}"},
            most=1,
        )
    )
    board.with_panel(
        lines(
            About(
                "Accuracy-goodput",
                "Sum of the accuracies of what was answered in time, over the requests with a deadline.",
                "percentunit",
                NO_DEADLINES,
            ),
            {"{{model}}": f"{accuracy} / {of_offered}"},
            most=1,
        )
    )
    board.with_panel(
        lines(
            About(
                "Requests with a deadline",
                "By what became of them.",
                "reqps",
                NO_DEADLINES,
            ),
            {
                "{{result}}": rate("rootserve_offered_total", f'{M}, deadline="yes"', "result")
                + " > 0"
            },
            stacked=True,
        )
    )
    board.with_panel(
        lines(
            About(
                "Variants that answer",
                "Answers of families that are served as one model, by the variant that computed them.",
                "reqps",
                "No request was for a family",
            ),
            {"{{computed_by}}": rate("rootserve_variant_answers_total", M, "computed_by") + " > 0"},
            stacked=True,
        )
    )
    board.with_panel(
        lines(
            About(
                "Promises broken",
                "Of the requests with a deadline that were admitted, the share that was answered late "
                "or dropped.",
                "percentunit",
                NO_DEADLINES,
            ),
            {"{{model}}": f"rootserve:promises_broken:ratio_rate5m{{{M}}} >= 0"},
        )
    )
    covered = rate("rootserve_prediction_ratio_bucket", f'{M}, le="1.0"', "model")
    batches = rate("rootserve_prediction_ratio_count", M, "model")
    board.with_panel(
        lines(
            About(
                "Time of batches over what was predicted",
                "Covered: the share that took no longer than predicted, which is to be 99 % for a p99. Mean: "
                "of the time over the predicted one; what is below 1 was kept in reserve.",
                "percentunit",
                NO_REQUESTS,
            ),
            {
                "{{model}} covered": f"{covered} / ({batches} > 0)",
                "{{model}} mean": mean("rootserve_prediction_ratio", M, "model"),
            },
        )
    )


def batching(board: Dashboard) -> None:
    """Batching."""
    board.with_row(Row("Batching"))
    board.with_panel(
        lines(
            About("Rows per batch", "Mean of each model, and the limit.", ROWS, NO_REQUESTS),
            {
                "{{model}}": mean("rootserve_batch_rows", M, "model"),
                "limit": "max(rootserve_batch_limit_rows)",
            },
        )
    )
    board.with_panel(
        lines(
            About(
                "Rows that wait", "In the queue, and with a worker.", ROWS, "No server is scraped"
            ),
            {
                "{{model}} queued": f"sum by (model) (rootserve_rows_queued{{{M}}})",
                "{{model}} in flight": f"sum by (model) (rootserve_rows_in_flight{{{M}}})",
            },
        )
    )
    board.with_panel(
        lines(
            About(
                "Queue saturation",
                "Rows that wait, of those that may; at 100 % requests are refused.",
                "percentunit",
                "No server is scraped",
            ),
            {"{{model}}": f"max by (model) (rootserve:queue_saturation:ratio{{{M}}})"},
            limit=0.8,
        )
    )
    board.with_panel(
        lines(
            About(
                "Images answered", "Rows (images) per second.", IMAGES, "No server is scraped", 12
            ),
            {"{{model}}": rate("rootserve_rows_total", M, "model")},
            stacked=True,
        )
    )
    board.with_panel(
        lines(
            About("Batches", "Computed batches per second.", BATCHES, "No server is scraped", 12),
            {"{{model}}": rate("rootserve_batch_rows_count", M, "model")},
            stacked=True,
        )
    )
