"""Parameters of RepositoryModelLoad: which version, in Triton's words, or back to what was before."""

from __future__ import annotations

from typing import NamedTuple

from google.protobuf import json_format
from tritonclient.grpc import model_config_pb2 as config_pb
from tritonclient.grpc import service_pb2 as oip

from rootserve.server.refusals import Reason, RefusalError
from rootserve.server.repository import LATEST
from rootserve.server.wire.words import listing, quote

CONFIG, ROLLBACK = "config", "rollback"


class LoadWish(NamedTuple):
    """What a caller wants loaded. ``version`` is None where the server is to say, LATEST for the latest."""

    version: int | None = None
    rollback: bool = False


def parse_load(request: oip.RepositoryModelLoadRequest) -> LoadWish:
    """What ``request`` wants.

    Raises:
        RefusalError: INVALID_REQUEST, naming the parameter and what was expected.
    """
    parameters = request.parameters
    if unknown := sorted(set(parameters) - {CONFIG, ROLLBACK}):
        raise _invalid(
            f"parameters {listing(unknown)} came, expected at most {CONFIG} and {ROLLBACK}: weights come "
            "from the folder only"
        )
    version = None
    if CONFIG in parameters:
        if parameters[CONFIG].WhichOneof("parameter_choice") != "string_param":
            raise _invalid(f"{CONFIG}: expected a string, a model configuration as JSON")
        version = _version(request.model_name, parameters[CONFIG].string_param)
    rollback = False
    if ROLLBACK in parameters:
        if parameters[ROLLBACK].WhichOneof("parameter_choice") != "bool_param":
            raise _invalid(f"{ROLLBACK}: expected true or false")
        rollback = parameters[ROLLBACK].bool_param
    if rollback and version is not None:
        raise _invalid(f"{CONFIG} and {ROLLBACK} came, expected one of them")
    return LoadWish(version, rollback)


def _version(name: str, text: str) -> int | None:
    """The version that a model configuration asks for; of Triton's fields it may have two."""
    config = config_pb.ModelConfig()
    try:
        json_format.Parse(text, config)
    except json_format.ParseError as error:
        raise _invalid(f"{CONFIG}: not a model configuration as JSON: {error}") from error
    fields = [field.name for field, _ in config.ListFields()]
    if others := [field for field in fields if field not in {"name", "version_policy"}]:
        raise _invalid(
            f"{CONFIG}: {listing(others)} came, expected version_policy alone: all else is of the server"
        )
    if config.name not in {"", name}:
        raise _invalid(f"{CONFIG}: name {quote(config.name)} came, expected {quote(name)}")
    policy = config.version_policy
    match policy.WhichOneof("policy_choice"):
        case None:
            return None
        case "latest" if policy.latest.num_versions <= 1:
            return LATEST
        case "specific" if len(policy.specific.versions) == 1:
            version = int(policy.specific.versions[0])
            if version < 1:
                raise _invalid(f"{CONFIG}: version {version} came, expected 1 or more")
            return version
    raise _invalid(
        f"{CONFIG}: a version_policy for several versions came, expected latest, or specific with one: a "
        "model is served in one version at a time"
    )


def _invalid(text: str) -> RefusalError:
    return RefusalError(Reason.INVALID_REQUEST, text)
