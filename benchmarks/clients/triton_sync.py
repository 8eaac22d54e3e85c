"""tritonclient.grpc: health, metadata, inference, statistics, and what is refused.

python benchmarks/clients/triton_sync.py ADDRESS
"""

from __future__ import annotations

import queue
import sys

import tritonclient.grpc as triton
from cat import MODEL, check, pixels
from tritonclient.utils import InferenceServerException


def main(address: str) -> None:
    """Ask all that the client can ask of a server without a GPU."""
    with triton.InferenceServerClient(address) as client:
        print("live", client.is_server_live(), "ready", client.is_server_ready())
        print(
            "model ready", client.is_model_ready(MODEL), "unknown", client.is_model_ready("nobody")
        )
        server = client.get_server_metadata()
        print(server.name, "extensions", ", ".join(server.extensions))
        metadata = client.get_model_metadata(MODEL)
        print("inputs", [(t.name, t.datatype, list(t.shape)) for t in metadata.inputs])
        print("outputs", [(t.name, t.datatype, list(t.shape)) for t in metadata.outputs])
        config = client.get_model_config(MODEL).config
        print("configuration", config.platform, "max_batch_size", config.max_batch_size)

        images = triton.InferInput("images", [1, 3, 32, 32], "UINT8")
        images.set_data_from_numpy(pixels())
        answer = client.infer(MODEL, [images], request_id="a-1", client_timeout=30)
        print("infer", answer.get_response().id, check(answer.as_numpy("logits")))
        named = [triton.InferRequestedOutput(name) for name in ("probabilities", "logits")]
        answer = client.infer(MODEL, [images], outputs=named, compression_algorithm="gzip")
        print("gzip, probability", round(float(answer.as_numpy("probabilities").max()), 3))

        answers: queue.Queue[tuple[triton.InferResult, InferenceServerException]] = queue.Queue()
        for _ in range(100):
            client.async_infer(MODEL, [images], lambda result, error: answers.put((result, error)))
        got = [answers.get(timeout=30) for _ in range(100)]
        assert all(error is None for _, error in got)
        assert all(check(result.as_numpy("logits")) for result, _ in got)
        print("async_infer", len(got), "answers")

        (model,) = client.get_inference_statistics(MODEL).model_stats
        print("statistics", model.inference_stats.success.count >= len(got), "count >=", len(got))
        index = client.get_model_repository_index().models
        print("index", len(index), "models,", sum(m.state == "READY" for m in index), "ready")

        client.infer(MODEL, [images], sequence_id=1, sequence_start=True)
        print("sequence_id is taken")
        client.load_model(MODEL)
        print("load_model is taken, ready", client.is_model_ready(MODEL))
        for name, status, call in (
            ("unknown model", "NOT_FOUND", lambda: client.infer("nobody", [images])),
            ("version 2", "NOT_FOUND", lambda: client.infer(MODEL, [images], model_version="2")),
            ("trace settings", "UNIMPLEMENTED", client.get_trace_settings),
            ("log settings", "UNIMPLEMENTED", client.get_log_settings),
        ):
            try:
                call()
                raise AssertionError(f"{name}: an answer came, expected {status}")
            except InferenceServerException as error:
                if error.status() != f"StatusCode.{status}":
                    raise
                print(f"{name}: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])
