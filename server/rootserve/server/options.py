"""Settings from the command line, the environment and a TOML file, in this order of precedence."""

from __future__ import annotations

import argparse
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Literal, NamedTuple, Union, get_args, get_origin

from pydantic import ValidationError

from rootserve.server import core_is, version
from rootserve.server.nearest import nearest
from rootserve.server.settings import Settings

_DESCRIPTION = """\
Serve CNN variants with hierarchical filter groups over gRPC (Open Inference Protocol v2).
"""
_EPILOG = """\
Each option can also be an environment variable (ROOTSERVE_MAX_BATCH_ROWS for --max-batch-rows) or a
key of the TOML file given by --config (max_batch_rows). The command line wins over the environment,
and the environment over the file.
"""


_PREFIX = "ROOTSERVE_"
_OTHER_VARIABLES = ("ROOTSERVE_CONFIG", "ROOTSERVE_SERVER", "ROOTSERVE_TOKEN", "ROOTSERVE_DATA")
"""Those that are no setting of the service: the file with settings, and what client and tests read."""
_OF_KUBERNETES = re.compile(
    r"ROOTSERVE_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_ADDRESS = re.compile(r"(tcp|udp|sctp)://")
_ALIKE = 0.8
"""How alike another name must be, 0 to 1: many options and variables are no misspellings of ours."""
_PATTERNS = {
    "device": "auto, cpu, cuda, or cuda:N,...",
    "caller_key": "the name of metadata: up to 100 small letters, digits, '_', '.' and '-'",
}
"""What is expected of settings that have a pattern, in words."""


class OptionError(ValueError):
    """An option has a value that cannot be used; names the option, the value and what was expected."""


class Options(NamedTuple):
    """The settings, from where each has its value, and whether they are only to be checked.

    A setting without a source has its default.
    """

    settings: Settings
    sources: Mapping[str, str]
    check_only: bool


def read_settings(
    arguments: Sequence[str], environment: Mapping[str, str] = os.environ
) -> Settings:
    """As :func:`read_options`, the settings alone."""
    return read_options(arguments, environment).settings


def read_options(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> Options:
    """The settings that ``arguments``, ``environment`` and the TOML file make together.

    Raises:
        OptionError: naming the source as the user wrote it: ``--port``, ``ROOTSERVE_PORT``, or
            ``port in FILE``.
        SystemExit: for ``--help`` and ``--version``, and for an option without its value.
    """
    known, unknown = _parser().parse_known_args(arguments)
    if unknown:
        raise OptionError(_no_option(unknown[0]))
    flags = vars(known)
    check_only = flags.pop("check_config")
    config = flags.pop("config") or environment.get(f"{_PREFIX}CONFIG")
    values: dict[str, object] = {}
    sources: dict[str, str] = {}
    if config is not None:
        for key, value in _read_toml(Path(config)).items():
            values[key] = value
            sources[key] = f"{key} in {config}"
    variables = own_variables(environment)
    _refuse_unknown(variables)
    for key in Settings.model_fields:
        variable = f"{_PREFIX}{key.upper()}"
        if variable in variables:
            values[key] = variables[variable]
            sources[key] = variable
        if flags[key] is not None:
            values[key] = flags[key]
            sources[key] = _flag(key)
    try:
        return Options(Settings.model_validate(values), sources, check_only)
    except ValidationError as error:
        raise OptionError("\n".join(_explain(error, values, sources))) from None


def own_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that are meant for this program.

    In every pod beside a Service called ``rootserve``, Kubernetes sets ROOTSERVE_PORT=tcp://10.0.0.1:8001,
    ROOTSERVE_SERVICE_HOST, ROOTSERVE_PORT_8001_TCP_ADDR and so on; one called ``rootserve-metrics`` gives
    ROOTSERVE_METRICS_PORT=tcp://... and the like.
    """
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(_PREFIX)
        and not _OF_KUBERNETES.fullmatch(name)
        and not (name.endswith("_PORT") and _ADDRESS.match(value))
    }


def _refuse_unknown(variables: Mapping[str, str]) -> None:
    """A variable that is misspelt must not be without effect, and without a word.

    Raises:
        OptionError: naming those that are none of this program's, or its client's, and the nearest that is.
    """
    known = [_PREFIX + key.upper() for key in Settings.model_fields]
    lines = [
        f"{name}: there is no such setting{nearest(name, known, _ALIKE)}"
        for name in sorted(variables.keys() - {*known, *_OTHER_VARIABLES})
    ]
    if lines:
        raise OptionError("\n".join(lines))


def _no_option(word: str) -> str:
    """What is wrong with an argument that is none."""
    if not word.startswith("-"):
        return f"{word!r} came, expected options only, as --models A,B (see --help)"
    flags = [*map(_flag, Settings.model_fields), "--config", "--check-config", "--version"]
    name = word.partition("=")[0]
    return f"{name}: there is no such option{nearest(name, flags, _ALIKE) or ' (see --help)'}"


def _read_toml(path: Path) -> dict[str, object]:
    try:
        content = tomllib.loads(path.read_text())
    except OSError as error:
        raise OptionError(f"--config: {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise OptionError(f"--config: {path} is not valid TOML: {error}") from error
    for key in content:
        if key not in Settings.model_fields:
            hint = nearest(key, Settings.model_fields)
            hint = hint or f"; there are {', '.join(Settings.model_fields)}"
            raise OptionError(f"{key} in {path}: there is no such setting{hint}")
    return content


def _explain(
    error: ValidationError, values: Mapping[str, object], sources: Mapping[str, str]
) -> list[str]:
    lines = []
    for detail in error.errors():
        message = detail["msg"].removeprefix("Value error, ")
        message = message.replace("Input should be", "expected")
        if not detail["loc"]:
            key, _, rest = message.partition(": ")
            lines.append(f"{sources.get(key, _flag(key))}: {rest}")
            continue
        key = str(detail["loc"][0])
        if choices := _choices(Settings.model_fields[key].annotation):
            message = f"expected {', '.join(choices[:-1])} or {choices[-1]}"
        elif detail["type"] == "string_pattern_mismatch":
            message = f"expected {_PATTERNS[key]}"
        lines.append(f"{sources.get(key, key)}: {values.get(key)!r} came, {message}")
    # A choice that is one of several types is told once, and not by each of them.
    return list(dict.fromkeys(lines))


def _choices(annotation: object) -> list[str]:
    """The words that a setting of this type may have; nothing where it may have others."""
    if get_origin(annotation) is Literal:
        return list(map(str, get_args(annotation)))
    if get_origin(annotation) not in (Union, UnionType):
        return []
    parts = [_choices(part) for part in get_args(annotation)]
    return [choice for part in parts for choice in part] if all(parts) else []


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rootserve-server",
        usage="rootserve-server [OPTIONS]",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(
            prog, max_help_position=30, width=100
        ),
        add_help=False,
    )
    groups: dict[str, argparse._ArgumentGroup] = {}
    for key, field in Settings.model_fields.items():
        extra = field.json_schema_extra
        assert isinstance(extra, dict)
        name = str(extra["group"])
        group = groups.setdefault(name, parser.add_argument_group(name))
        text = field.description or ""
        if field.default not in ((), None) and "default" not in text:
            text += f" (default: {field.default})"
        several = "append" if field.annotation == tuple[Path, ...] else "store"
        told = text.replace("%", "%%")
        group.add_argument(_flag(key), metavar=_metavar(key), help=told, action=several)
    general = parser.add_argument_group("general")
    general.add_argument("--config", metavar="FILE", help="TOML file with settings")
    general.add_argument(
        "--check-config",
        action="store_true",
        help="tell the settings, where each comes from and whether a start would succeed; start nothing, and "
        "exit with 2 if it would not",
    )
    general.add_argument(
        "--version", action="version", version=f"rootserve {version()}, core: {core_is()}"
    )
    general.add_argument("-h", "--help", action="help", help="show this help and exit")
    return parser


def _flag(key: str) -> str:
    return f"--{key.replace('_', '-')}"


def _metavar(key: str) -> str:
    names: dict[object, str] = {
        int: "N",
        float: "SECONDS",
        float | None: "RATIO",
        str | None: "URL",
        tuple[Path, ...]: "DIR",
        Path | None: "FILE",
        tuple[str, ...]: "A,B",
    }
    if key == "datasets":
        return "NAME=PATH,..."
    if key == "versions":
        return "NAME=N,..."
    if key == "cache":
        return "DIR"
    if key.endswith("_ms"):
        return "MS"
    if choices := _choices(Settings.model_fields[key].annotation):
        return "|".join(choices)
    return names.get(Settings.model_fields[key].annotation, key.upper())
