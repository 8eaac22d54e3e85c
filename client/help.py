"""Help in sections, for commands with more options than one can read as one list."""

from itertools import groupby
from typing import Any

import typer.core

_OTHER = "Options"


class SectionedCommand(typer.core.TyperCommand):
    """Lists its options under the names given to them as `rich_help_panel`, in their order."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the sections."""
        parameters = [each for each in self.get_params(ctx) if each.get_help_record(ctx)]
        for section, group in groupby(parameters, _section):
            with formatter.section(section):
                formatter.write_dl([each.get_help_record(ctx) for each in group])


def _section(parameter: Any) -> str:
    return getattr(parameter, "rich_help_panel", None) or _OTHER
