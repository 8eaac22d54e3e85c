"""tritonclient.grpc's streams: order, errors in between, final answers, and the end with a status.

python benchmarks/clients/triton_stream.py ADDRESS
"""

from __future__ import annotations

import queue
import sys

import tritonclient.grpc as triton
from cat import MODEL, check, pixels
from tritonclient.utils import InferenceServerException

Answers = queue.Queue[tuple[triton.InferResult, InferenceServerException]]


def ask(
    client: triton.InferenceServerClient, models: list[str], headers: dict[str, str]
) -> list[str]:
    """A stream with a request for each of ``models``; what came, until all is there or it ended."""
    images = triton.InferInput("images", [1, 3, 32, 32], "UINT8")
    images.set_data_from_numpy(pixels())
    answers: Answers = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)), headers=headers)
    for number, model in enumerate(models):
        client.async_stream_infer(
            model, [images], request_id=str(number), enable_empty_final_response=True
        )
    told = []
    for number in range(len(models)):
        result, error = answers.get(timeout=30)
        if error is not None:
            told.append(str(error))
            if headers:  # the stream has ended
                break
            continue
        response = result.get_response()
        assert response.id == str(number), (response.id, number)
        assert response.parameters["triton_final_response"].bool_param
        check(result.as_numpy("logits"))
        told.append("answer")
    client.stop_stream()
    return told


def main(address: str) -> None:
    """A long stream, one with an error, and one that ends with it."""
    with triton.InferenceServerClient(address) as client:
        told = ask(client, [MODEL] * 500, {})
        assert told == ["answer"] * 500, told
        print("500 answers in order, each with triton_final_response")
        print("one error in between:", ask(client, [MODEL, "nobody", MODEL], {}))
        ended = ask(client, [MODEL, "nobody", MODEL], {"triton_grpc_error": "true"})
        assert len(ended) == 2, ended
        print("triton_grpc_error:", ended)


if __name__ == "__main__":
    main(*sys.argv[1:])
