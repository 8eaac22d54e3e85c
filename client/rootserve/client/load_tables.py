"""What `rootserve load` and `rootserve compare` print, within 80 columns."""

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rootserve.client.load.campaign import Campaign
from rootserve.client.load.doubts import doubts
from rootserve.client.load.mix import Mix
from rootserve.client.load.objective import judge
from rootserve.client.load.result import LoadResult, Part
from rootserve.client.load.statistics import Ratio
from rootserve.client.load.tally import STAGES
from rootserve.client.load.trace import Trace
from rootserve.client.tables import figures_table, separate
from rootserve.client.units import count, duration


def print_load(screen: Console, result: LoadResult) -> None:
    """Everything a load run measured."""
    screen.print(f"[bold]{escape(str(result.options.model))}[/], {escape(_load_words(result))}")
    facts = Table(box=None, show_header=False, pad_edge=False)
    facts.add_column()
    facts.add_column(justify="right")
    facts.add_column()
    facts.add_row("throughput", f"[bold]{result.throughput_rows_per_s:,.1f}[/]", "rows/s")
    facts.add_row("", f"{result.throughput_requests_per_s:,.1f}", "requests/s")
    facts.add_row(
        "requests", count(result.requests), f"in {result.window_s:.1f} s{_stable(result)}"
    )
    for code, number in result.errors.items():
        facts.add_row("[red]failed[/]", f"[red]{count(number)}[/]", f"[red]{escape(code)}[/]")
    if result.unfinished:
        facts.add_row("[red]unfinished[/]", f"[red]{count(result.unfinished)}[/]", "never answered")
    screen.print(facts)

    separate(screen)
    times = figures_table(screen, "time", "p50", "p90", "p99", "p99.9", "mean", "max")
    for name, summary in (("response", result.response_time), ("service", result.service_time)):
        figures = (summary.p50, summary.p90, summary.p99, summary.p999, summary.mean, summary.max)
        times.add_row(name, *(duration(value) for value in figures))
    screen.print(times)
    _print_stages(screen, result)
    for title, parts in (("model", result.by_model), ("server", result.by_server)):
        if len(parts) > 1:
            _print_parts(screen, title, parts)
    if result.options.concurrency is not None:
        screen.print(
            "closed loop: while the server is slow nobody sends, so users would wait longer "
            "than this; --rate measures that",
            style="dim",
        )
    print_warnings(screen, result)


def _print_stages(screen: Console, result: LoadResult) -> None:
    stages, detail = result.stages, result.stage_detail
    if stages is None or detail is None:
        return
    separate(screen)
    table = figures_table(
        screen, "stage", "unsent", "queue", "batch wait", "compute", "rest", "outside", "batch"
    )
    for name, title in (("mean", "mean"), ("p99", "at p99")):
        if times := detail.by_percentile.get(name):
            rows = f"{stages.batch_rows:.1f}" if name == "mean" else ""
            table.add_row(title, *(duration(times[stage]) for stage in STAGES), rows)
    screen.print(table)


def _print_parts(screen: Console, title: str, parts: Sequence[Part]) -> None:
    separate(screen)
    table = figures_table(screen, title, "rows/s", "requests", "failed", "p50", "p99")
    for part in parts:
        table.add_row(
            escape(part.name),
            f"{part.throughput_rows_per_s:,.1f}",
            count(part.requests),
            count(part.requests - part.succeeded),
            duration(part.response_time.p50),
            duration(part.response_time.p99),
        )
    screen.print(table)


def print_campaign(screen: Console, campaign: Campaign, slo_p99_s: float | None) -> None:
    """The runs of a campaign as a table, and what they say together."""
    head = campaign.head
    model = escape(str(head.options.model))
    screen.print(f"[bold]{model}[/], {len(campaign.runs)} runs of {head.options.duration_s:g} s")
    columns = ("run", "rows/s", "p50", "p99", "p99.9", "failed", "batch")
    objective = ("objective",) if slo_p99_s is not None else ()
    table = figures_table(screen, *columns, *objective)
    for result in campaign.runs:
        times = result.response_time
        cells = [
            escape(result.label),
            f"{result.throughput_rows_per_s:,.1f}",
            *(duration(value) for value in (times.p50, times.p99, times.p999)),
            count(result.requests - result.succeeded),
            f"{result.stages.batch_rows:.1f}" if result.stages else "-",
        ]
        if slo_p99_s is not None:
            verdict = judge(result, slo_p99_s)
            sure = "[green]met[/]" if verdict.met else "[red]missed[/]"
            cells.append(sure if verdict.decided else "[yellow]too few[/]")
        table.add_row(*cells)
    screen.print(table)
    if campaign.kind == "pairs":
        separate(screen)
        print_ratios(screen, campaign.ratios())
    if campaign.interrupted:
        runs = f"{len(campaign.runs)} run{'s' if len(campaign.runs) > 1 else ''}"
        screen.print(f"warning: interrupted after {runs}", style="yellow")
    for result in campaign.runs:
        print_warnings(screen, result, prefix=f"{result.label}: ")


def print_ratios(screen: Console, ratios: dict[str, Ratio | None]) -> None:
    """Ratios of B to A, each with its interval and what it means."""
    table = figures_table(screen, "B / A", "ratio", "95 % interval", "", left=1)
    names = {"throughput_rows_per_s": "throughput", "p50_s": "p50", "p99_s": "p99"}
    for name, ratio in ratios.items():
        table.add_row(names[name], *ratio_cells(ratio))
    screen.print(table)


def ratio_cells(ratio: Ratio | None) -> tuple[str, str, str]:
    """A ratio, its interval, and whether they differ."""
    if ratio is None:
        return "-", "-", ""
    if ratio.low is None or ratio.high is None:
        return f"{ratio.ratio:.3f}", "-", ""
    verdict = ("higher" if ratio.ratio > 1 else "lower") if ratio.differs else "no difference seen"
    return f"{ratio.ratio:.3f}", f"{ratio.low:.3f} to {ratio.high:.3f}", verdict


def print_warnings(screen: Console, result: LoadResult, prefix: str = "") -> None:
    """What casts doubt on the figures."""
    for doubt in doubts(result):
        screen.print(f"warning: {prefix}{doubt}", style="yellow", markup=False)


def _stable(result: LoadResult) -> str:
    if not result.stable:
        return ""
    counted = sum(trial.counted for trial in result.trials)
    return f", the last {counted} of {len(result.trials)} windows"


def _load_words(result: LoadResult) -> str:
    options = result.options
    if isinstance(options.rows, Mix):
        rows = f"{options.rows} rows per request"
    else:
        rows = f"{options.rows} row{'s' if options.rows > 1 else ''} per request"
    streams = ", over streams" if options.streaming else ""
    if options.concurrency is not None:
        return f"closed loop, {options.concurrency} under way at once, {rows}{streams}"
    if isinstance(options.rate, Trace):
        return f"open loop, replay of {options.rate}, {rows}{streams}"
    rate = f"{options.rate:g}" if isinstance(options.rate, int | float) else str(options.rate)
    return f"open loop, {rate} requests/s ({options.distribution}), {rows}{streams}"
