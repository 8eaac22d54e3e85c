"""What a start needs of the outside, opened or refused: models, credentials and tokens, data sets."""

from __future__ import annotations

import os
import time

from rootmodels.weights_info import WeightsError
from rootserve.pictures import DataError
from rootserve.server import version
from rootserve.server.analysis.datasets import Dataset, find_datasets
from rootserve.server.families import warn_of_taken_names, with_families
from rootserve.server.models import Models
from rootserve.server.observers.traces import Traces, TracesError
from rootserve.server.repository import Repository
from rootserve.server.security.authorize import Authorizer
from rootserve.server.security.exposure import exposure_warning
from rootserve.server.security.tls import TlsFiles
from rootserve.server.security.tokens import TokenStore
from rootserve.server.settings import Settings
from rootserve.server.specs import StartError


def open_models(settings: Settings) -> tuple[Repository, Models]:
    """The weights that there are, and the models of which some are to be served.

    Raises:
        FamilyError, ModelSelectionError, WeightsError: if they cannot be.
    """
    repository = Repository(settings.weights, settings.pinned_versions())
    models = repository.find_models()
    for folder in settings.weights:
        # Without one, models that are named are served untrained.
        if not settings.models and not folder.is_dir():
            raise WeightsError(
                f"weights: {folder} is no folder; expected one with weights or model files"
            )
    models.select(with_families(models, settings.models))
    warn_of_taken_names(models)
    return repository, models


def open_datasets(settings: Settings) -> dict[str, Dataset]:
    """The data sets that ``settings`` name.

    Raises:
        StartError: if one of them cannot be read.
    """
    try:
        return find_datasets(settings.dataset_paths(), settings.max_image_megapixels * 1_000_000)
    except DataError as error:
        raise StartError(f"datasets: {error}") from error


def open_protection(settings: Settings) -> tuple[TlsFiles | None, Authorizer | None]:
    """TLS and tokens as asked for.

    Raises:
        SecurityError: if a file of them cannot be used.
    """
    tls = authorizer = None
    if settings.tls_cert and settings.tls_key:
        tls = TlsFiles(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
    if settings.token_file:
        authorizer = Authorizer(TokenStore(settings.token_file, time.monotonic))
    return tls, authorizer


def cache_warning(settings: Settings) -> str | None:
    """What is wrong with the cache that was named, if something is. None is made.

    It is no reason not to start: the engines are measured again then.
    """
    if settings.cache is None:
        return None
    place = settings.cache.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        wrong = f"{place} is no folder"
    elif not os.access(place, os.W_OK | os.X_OK):
        wrong = f"{place} is not writable"
    else:
        return None
    return f"cache {settings.cache}: {wrong}; engines are measured anew at each start"


def protection_warning(settings: Settings) -> str | None:
    """A word to the operator where protection is missing; None where it is not."""
    return exposure_warning(
        settings.host,
        has_tls=settings.tls_cert is not None,
        has_client_ca=settings.tls_client_ca is not None,
        has_tokens=settings.token_file is not None,
    )


def open_traces(settings: Settings) -> Traces | None:
    """Who writes traces, if any are asked for; only then is OpenTelemetry imported.

    Raises:
        StartError: if it is not installed, or its settings make no sense.
    """
    if settings.traces == "off":
        return None
    try:
        from rootserve.server.observers.traces_otel import open_traces  # noqa: PLC0415 - see above
    except ModuleNotFoundError as error:
        raise StartError(
            f"traces: otlp came, but {error.name} is not installed; pip install 'rootserve[traces]'"
        ) from error
    try:
        return open_traces(version(), settings.traces_endpoint, settings.traces_ratio)
    except TracesError as error:
        raise StartError(str(error)) from error
