"""Classes as Triton's image clients ask for them: all they know of the model comes from the server.

python benchmarks/clients/classes.py ADDRESS
"""

from __future__ import annotations

import sys

import numpy as np
import tritonclient.grpc as triton
from cat import MODEL, PATH
from PIL import Image
from tritonclient.grpc import model_config_pb2
from tritonclient.utils import triton_to_np_dtype

TOP = 3


def main(address: str) -> None:
    """Read what the model takes, send it a batch, and read ``value:index:label``."""
    with triton.InferenceServerClient(address) as client:
        metadata, config = client.get_model_metadata(MODEL), client.get_model_config(MODEL).config
        (entry,), (output,), (listed,) = metadata.inputs, metadata.outputs, config.input
        form = model_config_pb2.ModelInput.Format.Name(listed.format)
        _, channels, height, width = entry.shape
        print(entry.name, entry.datatype, form, (channels, height, width), "->", output.name)
        assert (form, channels) == ("FORMAT_NCHW", 3)
        assert config.max_batch_size >= 2

        picture = Image.open(PATH).convert("RGB").resize((width, height))
        image = np.asarray(picture).astype(triton_to_np_dtype(entry.datatype)).transpose(2, 0, 1)
        batch = np.stack([image, image])
        tensor = triton.InferInput(entry.name, list(batch.shape), entry.datatype)
        tensor.set_data_from_numpy(batch)
        wanted = triton.InferRequestedOutput(output.name, class_count=TOP)
        rows = client.infer(MODEL, [tensor], outputs=[wanted]).as_numpy(output.name)
        assert rows.shape == (len(batch), TOP), rows.shape
        for row in rows:
            print([entry.decode() for entry in row])
            value, index, label = row[0].decode().split(":")
            assert (float(value) > 0, index, label) == (True, "3", "cat")


if __name__ == "__main__":
    main(*sys.argv[1:])
