"""The Grafana dashboard as code: ``python ops/grafana/dashboard.py`` writes its JSON.

With ``--check`` it writes nothing, and fails when the committed JSON is not what it would write.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fleet_rows import analysis, variants, workers
from grafana_foundation_sdk.builders.dashboard import Dashboard, QueryVariable
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import TimeZoneBrowser
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    VariableOption,
    VariableRefresh,
    VariableSort,
)
from panels import DATASOURCE
from service_rows import batching, callers, time

TARGET = Path(__file__).parent / "dashboards" / "rootserve.json"


def build() -> str:
    """The dashboard as JSON."""
    board = Dashboard("Rootserve").uid("rootserve").tags(["rootserve", "inference"])
    board.description(
        "Whether callers are served well, where the time goes, and what each variant costs."
    )
    board.time("now-15m", "now").refresh("5s").timezone(TimeZoneBrowser)
    board.tooltip(DashboardCursorSync.CROSSHAIR).readonly()
    for name, metric in {"model": "rootserve_model_ready", "worker": "rootserve_worker_up"}.items():
        board.with_variable(
            QueryVariable(name)
            .label(name.capitalize())
            .query(f"label_values({metric}, {name})")
            .datasource(DATASOURCE)
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(VariableSort.ALPHABETICAL_ASC)
            .multi(True)
            .include_all(True)
            .all_value(".*")
            .current(VariableOption(selected=True, text="All", value="$__all"))
        )
    for row in (callers, time, batching, workers, variants, analysis):
        row(board)
    built = board.build()
    for number, panel in enumerate(built.panels or [], start=1):
        panel.id_val = number
    return JSONEncoder(sort_keys=True, indent=2).encode(built) + "\n"


def main() -> int:
    """Write the JSON, or check it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail if the file is not current")
    made = build()
    if not parser.parse_args().check:
        TARGET.write_text(made)
    elif TARGET.read_text() != made:
        print(f"{TARGET} is not current; run python ops/grafana/dashboard.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
