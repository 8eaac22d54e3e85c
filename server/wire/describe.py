"""Models in the words of the Open Inference Protocol and of Triton's extensions."""

from __future__ import annotations

from tritonclient.grpc import model_config_pb2 as config_pb
from tritonclient.grpc import service_pb2 as oip

from server.core.scheduler import Limits
from server.models import (
    INPUT_NAME,
    LOGITS_NAME,
    PROBABILITIES_NAME,
    VERSION,
    Model,
    Models,
    State,
)
from server.observers.statistics import ModelStatistics, Total

EXTENSIONS = (
    "binary_tensor_data",
    "model_configuration",
    "model_repository",
    "parameters",
    "schedule_policy",
    "statistics",
)

_INDEX_STATES = {
    State.UNLOADED: "UNAVAILABLE",
    State.LOADING: "LOADING",
    State.READY: "READY",
    State.FAILED: "UNAVAILABLE",
}


def model_metadata(model: Model) -> oip.ModelMetadataResponse:
    """Names, datatypes and shapes; -1 is the number of rows."""
    card = model.card
    metadata = oip.ModelMetadataResponse(
        name=card.name, versions=[VERSION], platform=f"rootserve_{model.engine}"
    )
    metadata.inputs.add(name=INPUT_NAME, datatype="UINT8", shape=(-1, *card.image))
    for name in (LOGITS_NAME, PROBABILITIES_NAME):
        metadata.outputs.add(name=name, datatype="FP32", shape=(-1, len(card.classes)))
    return metadata


def model_config(model: Model, limits: Limits) -> oip.ModelConfigResponse:
    """The model as Triton would be told to serve it; cost and accuracy are among the parameters."""
    card = model.card
    config = config_pb.ModelConfig(
        name=card.name,
        platform=f"rootserve_{model.engine}",
        backend=model.engine,
        max_batch_size=limits.max_batch_rows,
        dynamic_batching=config_pb.ModelDynamicBatching(
            preferred_batch_size=limits.preferred_rows,
            max_queue_delay_microseconds=round(limits.max_delay_s * 1e6),
        ),
    )
    config.input.add(
        name=INPUT_NAME,
        data_type=config_pb.TYPE_UINT8,
        format=config_pb.ModelInput.FORMAT_NCHW,
        dims=card.image,
    )
    for name in (LOGITS_NAME, PROBABILITIES_NAME):
        config.output.add(name=name, data_type=config_pb.TYPE_FP32, dims=(len(card.classes),))
    values = {
        "params": card.cost.params,
        "macs": card.cost.macs,
        "precision": model.precision,
        "accuracy": "" if card.accuracy is None else card.accuracy,
    }
    for key, value in values.items():
        config.parameters[key].string_value = str(value)
    return oip.ModelConfigResponse(config=config)


def model_statistics(model: Model, statistics: ModelStatistics) -> oip.ModelStatistics:
    """Triton's counters: per request, and times as nanoseconds since the server started.

    ``compute_input`` is the hand-over of a closed batch to the worker, ``compute_output`` the rest of
    the way back.
    """
    return oip.ModelStatistics(
        name=model.card.name,
        version=VERSION,
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
    """Name, version, state and reason of each model."""
    index = oip.RepositoryIndexResponse()
    for model in models:
        if only_ready and not model.is_ready:
            continue
        index.models.add(
            name=model.card.name,
            version=VERSION,
            state=_INDEX_STATES[model.state],
            reason=model.state_reason or ("not served" if not model.served else ""),
        )
    return index
