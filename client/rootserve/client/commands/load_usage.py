"""Which options of `rootserve load` go together; each refusal names them and what was expected."""

from pathlib import Path

from rootserve.client.errors import InputError

_MOST_ROUNDS = 100


def check_the_load(
    concurrency: str | None,
    rate: str | None,
    replay: Path | None,
    distribution: str | None,
    max_in_flight: int | None,
    *,
    find_max: bool,
) -> None:
    """What says how the load comes.

    Raises:
        InputError: Two options contradict each other, or one is missing.
    """
    loads = {"--concurrency": concurrency, "--rate": rate, "--replay": replay}
    given = [name for name, value in loads.items() if value is not None]
    if find_max and given not in ([], ["--rate"]):
        raise InputError(f"--find-max with {given[0]}: expected --rate to begin with, or nothing")
    if not given and not find_max:
        raise InputError(
            "neither --concurrency nor --rate: expected --concurrency C for a closed loop, "
            "--rate R for an open one, or --replay FILE"
        )
    if len(given) > 1:
        raise InputError(f"both {given[0]} and {given[1]}: expected one of them")
    for option, value in (("--distribution", distribution), ("--max-in-flight", max_in_flight)):
        if value is not None and concurrency is not None:
            raise InputError(f"{option} without --rate: it shapes the open loop only")
    if distribution is not None and replay is not None:
        raise InputError("--distribution with --replay: the file tells every departure")
    if distribution not in {None, "poisson", "constant"}:
        raise InputError(f"--distribution {distribution}: expected poisson or constant")


def check_the_measure(
    max_trials: int | None,
    stable: float | None,
    slo_p99_ms: float | None,
    find_max: bool,
    versus: str | None,
    rounds: int | None,
) -> None:
    """What says what is measured.

    Raises:
        InputError: Two options contradict each other, or one is missing.
    """
    if slo_p99_ms is not None and not 0 < slo_p99_ms < float("inf"):
        raise InputError(f"--slo-p99-ms {slo_p99_ms:g}: expected more than 0")
    if stable is not None and not 0 < stable <= 100:
        raise InputError(f"--stable {stable:g}: expected more than 0 and up to 100 percent")
    for option, value, other, needed in (
        ("--max-trials", max_trials, "--stable", stable),
        ("--find-max", find_max or None, "--slo-p99-ms", slo_p99_ms),
        ("--rounds", rounds, "--versus", versus),
    ):
        if value is not None and needed is None:
            raise InputError(f"{option} without {other}: expected both")
    if versus is not None and (find_max or slo_p99_ms is not None):
        raise InputError("--versus with --slo-p99-ms or --find-max: expected one or the other")
    if rounds is not None and not 1 <= rounds <= _MOST_ROUNDS:
        raise InputError(f"--rounds {rounds}: expected 1 to {_MOST_ROUNDS}")
