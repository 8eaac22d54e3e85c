"""``rootserve-server --check-config``: what a start would use, and whether it would succeed."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import NamedTuple

from rootmodels.family import FamilyError
from rootmodels.weights_info import WeightsError
from rootserve.server.machine import cuda_device_count
from rootserve.server.models import Models, ModelSelectionError
from rootserve.server.options import Options
from rootserve.server.security import SecurityError
from rootserve.server.settings import Settings, told
from rootserve.server.specs import StartError, worker_specs
from rootserve.server.starting import (
    cache_warning,
    open_datasets,
    open_models,
    open_protection,
    open_traces,
    protection_warning,
)
from rootserve.server.wire.listening import authority_of

_REFUSALS = (FamilyError, ModelSelectionError, SecurityError, StartError, WeightsError)


class Finding(NamedTuple):
    """What one check found: ``level`` is "ok", "note" or "error"."""

    level: str
    what: str
    text: str


def check(options: Options) -> int:
    """Print the settings with their sources, and what was found; 2 if a start would fail, else 0."""
    print("settings")
    for key, value in options.settings:
        print(f"  {key:<22}  {_shown(value):<40}  {options.sources.get(key, 'default')}".rstrip())
    print("checks")
    findings = list(check_settings(options.settings))
    for finding in findings:
        print(f"  {finding.level:<5}  {finding.what:<8}  {finding.text}")
    return 2 if any(finding.level == "error" for finding in findings) else 0


def check_settings(settings: Settings) -> Iterator[Finding]:
    """Every check, whatever the others found."""
    models: list[Models] = []

    def look_at_models() -> str:
        _, found = open_models(settings)
        models.append(found)
        return f"{_shown(settings.weights)}: {_listed(found)}"

    yield _try("models", look_at_models)
    if models:
        yield _try("device", lambda: _device(settings, models[0]))
    yield _try("tls", lambda: _tls(settings))
    yield _try("tokens", lambda: _tokens(settings))
    if warning := protection_warning(settings):
        yield Finding("note", "exposure", warning)
    if warning := cache_warning(settings):
        yield Finding("note", "cache", warning)
    if settings.datasets:
        yield _try("datasets", lambda: ", ".join(open_datasets(settings)))
    if settings.traces != "off":
        yield _try("traces", lambda: _traces(settings))
    yield from _addresses(settings)


def _try(what: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding("ok", what, look())
    except _REFUSALS as error:
        return Finding("error", what, str(error))


def _listed(models: Models) -> str:
    return "; ".join(
        f"{card.name} version {card.version} {card.weights_id or 'untrained'}"
        for card in (model.card for model in models.served())
    )


def _device(settings: Settings, models: Models) -> str:
    count = 0 if settings.device == "cpu" else cuda_device_count()
    specs = worker_specs(settings, models, count)
    return f"workers {', '.join(spec.name for spec in specs)}"


def _tls(settings: Settings) -> str:
    if settings.tls_cert is None:
        return "off"
    open_protection(settings.model_copy(update={"token_file": None}))
    authorities = settings.tls_client_ca
    return f"{settings.tls_cert} fits {settings.tls_key}" + (
        f"; clients need a certificate of {authorities}" if authorities else ""
    )


def _tokens(settings: Settings) -> str:
    if settings.token_file is None:
        return "off"
    without_tls = {"tls_cert": None, "tls_key": None, "tls_client_ca": None}
    open_protection(settings.model_copy(update=without_tls))
    return str(settings.token_file)


def _traces(settings: Settings) -> str:
    traces = open_traces(settings)
    assert traces is not None
    traces.close()
    return settings.traces


def _addresses(settings: Settings) -> Iterator[Finding]:
    for what, port in (("port", settings.port), ("metrics", settings.metrics_port)):
        address = authority_of(settings.host, port)
        try:
            family, kind, _, _, place = socket.getaddrinfo(
                settings.host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            with closing(socket.socket(family, kind)) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(place)
                probe.listen(1)
        except socket.gaierror as error:
            yield Finding("error", what, f"{address}: {error.strerror}")
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                yield Finding("note", what, f"{address} is in use, as it is while the service runs")
            else:
                yield Finding("error", what, f"{address}: {os.strerror(error.errno or 0)}")
        else:
            yield Finding("ok", what, address)


def _shown(value: object) -> str:
    if value in (None, ()):
        return "-"
    shown = told(value)
    return ",".join(map(str, shown)) if isinstance(shown, tuple) else f"{shown}"
