"""What commands and their lists look like in the help, and which options may stand before them."""

from itertools import groupby
from typing import Any

import typer.core

_OTHER = "Options"
_LONG = 1000
CONNECTION_OPTIONS = {
    "--server": True,
    "--tls": False,
    "--tls-ca": True,
    "--tls-cert": True,
    "--tls-key": True,
    "--token-file": True,
    "--wait": True,
}
"""Those of `rootserve.client.connecting`, and whether a value follows."""


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


class CommandGroup(typer.core.TyperGroup):
    """Lists its commands with whole sentences, and takes the connection's options before them as well."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write them; click itself cuts what does not fit into a line."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, each.get_short_help_str(_LONG)) for name, each in commands if each]
            )

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Move them behind the command's name; what is given there as well counts."""
        rest = list(args)
        moved: list[str] = []
        while rest and (takes := CONNECTION_OPTIONS.get(rest[0].partition("=")[0])) is not None:
            length = 2 if takes and "=" not in rest[0] else 1
            moved += rest[:length]
            rest = rest[length:]
        if rest and rest[0].startswith("-"):
            # Such as --help: there is no command for which they could be meant.
            return super().parse_args(ctx, rest)
        # Without a command the help is shown, as without anything.
        return super().parse_args(ctx, [*rest[:1], *moved, *rest[1:]] if rest else [])
