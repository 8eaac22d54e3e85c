"""Models in the words of the Open Inference Protocol and of Triton's extensions."""

from __future__ import annotations

from dataclasses import dataclass

from tritonclient.grpc import model_config_pb2 as config_pb
from tritonclient.grpc import service_pb2 as oip

from rootserve.server.core.scheduler import Limits
from rootserve.server.families import (
    VirtualModel,
    accuracy_of,
    interface_of,
    virtual_models,
)
from rootserve.server.models import (
    ENCODED_NAME,
    INPUT_NAME,
    LOGITS_NAME,
    PROBABILITIES_NAME,
    Model,
    Models,
    State,
)
from rootserve.server.observers.statistics import ModelStatistics, Total

_EXTENSIONS = (
    "classification",
    "model_configuration",
    "parameters",
    "schedule_policy",
    "statistics",
)

# The names that the protocol and Triton have for what computes a model.
_PLATFORMS = {"openvino": ("openvino_ir", "openvino")}
_TORCH = ("pytorch_torchscript", "pytorch")

_INDEX_STATES = {
    State.UNLOADED: "UNAVAILABLE",
    State.LOADING: "LOADING",
    State.READY: "READY",
    State.FAILED: "UNAVAILABLE",
}


@dataclass(frozen=True, slots=True)
class Tensors:
    """The tensors that metadata and configuration list; the others are served all the same.

    Many clients want exactly one input and one output.
    """

    inputs: tuple[str, ...] = (INPUT_NAME,)
    outputs: tuple[str, ...] = (LOGITS_NAME,)

    @staticmethod
    def all() -> Tensors:
        """Every tensor that is served."""
        return Tensors((INPUT_NAME, ENCODED_NAME), (LOGITS_NAME, PROBABILITIES_NAME))


def extensions(*, control: bool, shared_memory: bool) -> list[str]:
    """Those of Triton's extensions that are served here."""
    optional = {"model_repository": control, "system_shared_memory": shared_memory}
    return sorted([*_EXTENSIONS, *(name for name, served in optional.items() if served)])


def model_metadata(model: Model | VirtualModel, tensors: Tensors) -> oip.ModelMetadataResponse:
    """Names, datatypes and shapes; -1 is the number of rows. Of the inputs a request has one."""
    card = interface_of(model)
    platform, _ = _platform(model)
    metadata = oip.ModelMetadataResponse(name=card.name, versions=[card.version], platform=platform)
    kinds = {INPUT_NAME: ("UINT8", (-1, *card.image)), ENCODED_NAME: ("BYTES", (-1, 1))}
    for name in tensors.inputs:
        datatype, shape = kinds[name]
        metadata.inputs.add(name=name, datatype=datatype, shape=shape)
    for name in tensors.outputs:
        metadata.outputs.add(name=name, datatype="FP32", shape=(-1, len(card.classes)))
    return metadata


def model_config(
    model: Model | VirtualModel, limits: Limits, tensors: Tensors
) -> oip.ModelConfigResponse:
    """The model as Triton would be told to serve it; cost and accuracy are among the parameters.

    Of a family these are its variants, and the accuracy of the most accurate one.
    """
    card = interface_of(model)
    platform, backend = _platform(model)
    config = config_pb.ModelConfig(
        name=card.name,
        platform=platform,
        backend=backend,
        version_policy=_version_policy(model),
        max_batch_size=limits.max_batch_rows,
        dynamic_batching=config_pb.ModelDynamicBatching(
            max_queue_delay_microseconds=round(limits.max_delay_s * 1e6),
        ),
    )
    one_of_several = len(tensors.inputs) > 1
    if INPUT_NAME in tensors.inputs:
        config.input.add(
            name=INPUT_NAME,
            data_type=config_pb.TYPE_UINT8,
            format=config_pb.ModelInput.FORMAT_NCHW,
            dims=card.image,
            optional=one_of_several,
        )
    if ENCODED_NAME in tensors.inputs:
        config.input.add(
            name=ENCODED_NAME,
            data_type=config_pb.TYPE_STRING,
            dims=(1,),
            optional=one_of_several,
        )
    for name in tensors.outputs:
        config.output.add(name=name, data_type=config_pb.TYPE_FP32, dims=(len(card.classes),))
    values = {
        "engine": model.engine,
        "precision": model.precision,
        "version": card.version,
        **_figures(model),
    }
    for key, value in values.items():
        config.parameters[key].string_value = str(value)
    return oip.ModelConfigResponse(config=config)


def _version_policy(model: Model | VirtualModel) -> config_pb.ModelVersionPolicy:
    policy = config_pb.ModelVersionPolicy()
    if isinstance(model, Model) and model.card.is_pinned:
        policy.specific.versions.append(int(model.card.version))
    else:
        policy.latest.num_versions = 1
    return policy


def _figures(model: Model | VirtualModel) -> dict[str, object]:
    if isinstance(model, VirtualModel):
        variants = (f"{one.card.name} {accuracy_of(one)}" for one in model.members)
        return {"accuracy": model.accuracy, "variants": ", ".join(variants)}
    card = model.card
    return {
        "params": card.cost.params,
        "macs": card.cost.macs,
        "accuracy": "" if card.accuracy is None else card.accuracy,
        "weights_sha256": card.weights_sha256,
        "generation": card.generation,
    }


def _platform(model: Model | VirtualModel) -> tuple[str, str]:
    """Platform and backend; of an engine that nobody else has, and of a model that is not loaded, our own."""
    if model.engine.startswith(("torch", "cuda")):
        return _TORCH
    return _PLATFORMS.get(model.engine, (model.engine, model.engine))


def model_statistics(name: str, version: str, statistics: ModelStatistics) -> oip.ModelStatistics:
    """Triton's counters: per request, and times as nanoseconds since the server started.

    ``compute_input`` is the hand-over of a closed batch to the worker, ``compute_output`` the rest of
    the way back.
    """
    return oip.ModelStatistics(
        name=name,
        version=version,
        last_inference=statistics.last_answer_ms,
        inference_count=statistics.rows,
        execution_count=statistics.batches,
        inference_stats=oip.InferStatistics(
            success=_duration(statistics.success),
            fail=_duration(statistics.fail),
            queue=_duration(statistics.queue),
            compute_input=_duration(statistics.hand_over),
            compute_infer=_duration(statistics.compute),
            compute_output=_duration(statistics.rest),
        ),
        batch_stats=[
            oip.InferBatchStatistics(batch_size=rows, compute_infer=_duration(total))
            for rows, total in sorted(statistics.by_batch_rows.items())
        ],
    )


def _duration(total: Total) -> oip.StatisticDuration:
    return oip.StatisticDuration(count=total.count, ns=total.ns)


def repository_index(models: Models, *, only_ready: bool) -> oip.RepositoryIndexResponse:
    """Name, version, state and reason of each model, and of each family that is served as one."""
    index = oip.RepositoryIndexResponse()
    for model in models:
        if only_ready and not model.is_ready:
            continue
        index.models.add(
            name=model.card.name,
            version=model.card.version,
            state=_INDEX_STATES[model.state],
            reason=model.state_reason or ("not served" if not model.served else ""),
        )
    for family in virtual_models(models):
        if family.is_ready or not only_ready:
            index.models.add(
                name=family.name,
                version=family.version,
                state=_INDEX_STATES[family.state],
                reason=family.state_reason,
            )
    return index
