"""What a caller of RepositoryModelLoad may wish, as Triton's clients write it."""

import json

import pytest
from tritonclient.grpc import service_pb2 as oip

from rootserve.server.refusals import Reason, RefusalError
from rootserve.server.repository import LATEST
from rootserve.server.wire.load_parameters import LoadWish, parse_load


def request(**parameters: object) -> oip.RepositoryModelLoadRequest:
    message = oip.RepositoryModelLoadRequest(model_name="nin-orig")
    for key, value in parameters.items():
        kind = {str: "string_param", bool: "bool_param", int: "int64_param"}[type(value)]
        setattr(message.parameters[key], kind, value)
    return message


@pytest.mark.parametrize(
    ("config", "version"),
    [
        ({}, None),
        ({"name": "nin-orig"}, None),
        ({"version_policy": {"specific": {"versions": [2]}}}, 2),
        ({"versionPolicy": {"specific": {"versions": ["3"]}}}, 3),
        ({"version_policy": {"latest": {"num_versions": 1}}}, LATEST),
        ({"version_policy": {"latest": {}}}, LATEST),
    ],
)
def test_a_version_is_asked_for_by_triton_s_policy(
    config: dict[str, object], version: int | None
) -> None:
    assert parse_load(request(config=json.dumps(config))) == LoadWish(version)


def test_without_parameters_the_server_chooses() -> None:
    assert parse_load(request()) == LoadWish(None, rollback=False)
    assert parse_load(request(rollback=True)) == LoadWish(None, rollback=True)
    assert parse_load(request(rollback=False)) == LoadWish(None, rollback=False)


ONE = json.dumps({"version_policy": {"specific": {"versions": [1]}}})


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"config": "{"}, "config: not a model configuration as JSON"),
        ({"config": '{"colour": 1}'}, 'has no field named "colour"'),
        ({"config": True}, "config: expected a string"),
        ({"rollback": 1}, "rollback: expected true or false"),
        ({"rollback": True, "config": ONE}, "config and rollback came, expected one of them"),
        ({"file:1/model.onnx": "x"}, "file:1/model.onnx came, expected at most config and rollback"),
        ({"config": '{"maxBatchSize": 8}'}, "max_batch_size came, expected version_policy alone"),
        ({"config": '{"name": "nin-root-4"}'}, "name 'nin-root-4' came, expected 'nin-orig'"),
        ({"config": '{"version_policy": {"all": {}}}'}, "one version at a time"),
        ({"config": ONE.replace("[1]", "[1, 2]")}, "one version at a time"),
        ({"config": ONE.replace("[1]", "[0]")}, "version 0 came, expected 1 or more"),
        ({"config": ONE.replace("specific", "latest").replace('"versions": [1]', '"num_versions": 2')},
         "one version at a time"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(parameters: dict[str, object], words: str) -> None:
    with pytest.raises(RefusalError) as caught:
        parse_load(request(**parameters))
    assert caught.value.reason is Reason.INVALID_REQUEST
    assert words in caught.value.message
