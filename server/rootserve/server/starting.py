"""What a start needs of the outside, opened or refused: models, credentials and tokens, data sets."""

from __future__ import annotations

import logging
import time

import grpc

from rootserve.pictures import DataError
from rootserve.server.analysis.datasets import Dataset, find_datasets
from rootserve.server.models import Models
from rootserve.server.repository import Repository
from rootserve.server.security.authorize import Authorizer
from rootserve.server.security.exposure import exposure_warning
from rootserve.server.security.tls import server_credentials
from rootserve.server.security.tokens import TokenStore
from rootserve.server.settings import Settings
from rootserve.server.specs import StartError

_log = logging.getLogger(__name__)


def open_models(settings: Settings) -> tuple[Repository, Models]:
    """The weights that there are, and the models of which some are to be served.

    Raises:
        FamilyError, ModelSelectionError, WeightsError: if they cannot be.
    """
    repository = Repository(settings.weights, settings.pinned_versions())
    models = repository.find_models()
    models.select(settings.models)
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


def open_protection(settings: Settings) -> tuple[grpc.ServerCredentials | None, Authorizer | None]:
    """TLS and tokens as asked for, and a word to the operator where they are missing.

    Raises:
        SecurityError: if a file of them cannot be used.
    """
    credentials = authorizer = None
    if settings.tls_cert and settings.tls_key:
        credentials = server_credentials(
            settings.tls_cert, settings.tls_key, settings.tls_client_ca
        )
    if settings.token_file:
        authorizer = Authorizer(TokenStore(settings.token_file, time.monotonic))
    warning = exposure_warning(
        settings.host,
        has_tls=credentials is not None,
        has_client_ca=settings.tls_client_ca is not None,
        has_tokens=authorizer is not None,
    )
    if warning:
        _log.warning("%s", warning)
    return credentials, authorizer
