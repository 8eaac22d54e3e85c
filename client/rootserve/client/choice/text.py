"""A choice as a terminal shows it, within 80 columns."""

from rich.console import Console
from rich.markup import escape

from rootserve.client.choice.columns import TERMINAL, in_order
from rootserve.client.choice.document import Choice
from rootserve.client.tables import figures_table

_STYLES = {"set": "bold", "near": "", "dominated": "dim", None: "dim"}
_LIMITED = "this client was the bottleneck in runs that missed, so the server may do more"
EXPLANATION = (
    "requests/s: the highest rate that holds the objective, ± half of its 95 % interval. ms/image: the "
    "server's own time, in batches as it makes them. Pareto set: no other is as good in accuracy and rate "
    "and better in one; near it: only the uncertainty of the rates keeps it out."
)


def print_choice(screen: Console, choice: Choice) -> None:
    """The table, what is to be said of it, and what follows."""
    rows = f", {choice.rows} images per request" if choice.rows > 1 else ""
    screen.print(
        f"[bold]{len(choice.variants)} variants[/], p99 within {choice.p99_s * 1e3:g} ms{rows}"
    )
    table = figures_table(screen, *(column.name for column in TERMINAL))
    for variant in in_order(list(choice.variants)):
        cells = (escape(column.text(variant)) for column in TERMINAL)
        table.add_row(*cells, style=_STYLES[variant.place])
    screen.print(table)
    screen.print()
    screen.print(explained(choice), style="dim", markup=False)
    for note, names in notes(choice).items():
        screen.print(f"{note}: {', '.join(names)}", style="yellow", markup=False)
    screen.print()
    screen.print(sentence(choice.recommendation), style="bold", markup=False)


def notes(choice: Choice) -> dict[str, list[str]]:
    """What is missing and why, with the names of those of which it is."""
    found: dict[str, list[str]] = {}
    for variant in choice.variants:
        if variant.note:
            found.setdefault(variant.note, []).append(variant.name)
        if variant.client_limited:
            found.setdefault(_LIMITED, []).append(variant.name)
    return found


def explained(choice: Choice) -> str:
    """What the columns mean, and where the accuracies come from."""
    sources = sorted({each.accuracy_source for each in choice.variants if each.accuracy_source})
    return EXPLANATION + (f" Accuracy: {'; '.join(sources)}." if sources else "")


def sentence(text: str) -> str:
    """The text with a capital, unless it begins with a name, and a full stop."""
    first = text.partition(" ")[0]
    begin = text if "-" in first else text[:1].upper() + text[1:]
    return f"{begin}."
