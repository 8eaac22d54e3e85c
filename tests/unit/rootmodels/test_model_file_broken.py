"""Model files that are broken, or meant to break the service: each is refused with where and why."""

import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from rootmodels.model_file import MODEL_KEY, model_names, open_weights, read_model
from rootmodels.parameters import load_network
from rootmodels.weights_info import WeightsError
from tests.support.model_files import (
    Content,
    all_kinds,
    content_of,
    model_of,
    mutated,
    write_small,
)

Tensors = dict[str, NDArray[np.generic]]


def layer_set(number: int, **fields: object) -> Callable[[Content], None]:
    def change(content: Content) -> None:
        content["layers"][number] |= fields

    return change


def whole_set(**fields: object) -> Callable[[Content], None]:
    return lambda content: content.update(fields)


def swap_layers(content: Content) -> None:
    layers = content["layers"]
    layers[0]["inputs"], layers[1]["inputs"] = ["pool"], ["features.conv1"]


def many_layers(content: Content) -> None:
    content["layers"] = content["layers"][:1] * 1001


def wide(content: Content) -> None:
    """Maps of 4,096 x 4,096 pixels, of which seven times three are held."""
    content["layers"] = [
        {"name": "a", "kind": "adaptive_avg_pool", "kernel": 1, "in_channels": 3, "out_channels": 3,
         "size": 4096, "inputs": ["images"]},
        *({"name": name, "kind": "identity", "kernel": 1, "in_channels": 3, "out_channels": 3,
           "size": 4096, "inputs": ["a"]} for name in "bcdefg"),
        {"name": "z", "kind": "global_avg_pool", "kernel": 1, "in_channels": 3, "out_channels": 3,
         "size": 1, "inputs": ["g"]},
    ]  # fmt: skip
    content["classes"] = ["x", "y", "z"]


def slow(content: Content) -> None:
    """Windows of 2,047 pixels, each around every pixel."""
    content["image_size"] = 1024
    padding = {"padding": 1023, "kernel": 2047}
    content["layers"] = [
        {"name": "a", "kind": "max_pool", "in_channels": 3, "out_channels": 3, "size": 1024,
         "inputs": ["images"], **padding},
        {"name": "b", "kind": "global_avg_pool", "kernel": 1, "in_channels": 3, "out_channels": 3,
         "size": 1, "inputs": ["a"]},
    ]  # fmt: skip
    content["classes"] = ["x", "y", "z"]


LAYERS = "layer 0 ('features.conv1')"
BROKEN_CONTENT: list[tuple[str, Callable[[Content], None], str]] = [
    ("a list", lambda content: content.clear(), "format is None, expected 1"),
    ("later format", whole_set(format=2), "format is 2, expected 1"),
    ("unknown field", whole_set(code="import os"), "field 'code' is not known; expected accuracy"),
    ("no layers", lambda content: content.pop("layers") and None, "it has no layers"),
    ("empty graph", whole_set(layers=[]), "layers: 0 of them, expected a list of 1 to 1000"),
    ("graph is text", whole_set(layers="conv"), "layers: 'conv', expected a list of 1 to 1000"),
    ("too many layers", many_layers, "layers: 1001 of them, expected a list of 1 to 1000"),
    ("path as name", whole_set(name="../etc/passwd"), "name is '../etc/passwd', expected up to 100"),
    ("absolute name", whole_set(name="/tmp/x"), "name is '/tmp/x', expected up to 100 small letters"),
    ("path as family", whole_set(family="a/b"), "family is 'a/b', expected up to 100 small letters"),
    ("variant's name", whole_set(name="nin-orig"), "a variant of the family nin; expected another"),
    ("long name", whole_set(name="n" * 101), "expected up to 100 small letters, digits"),
    ("layer's path", layer_set(0, name="../x"), "name is '../x', expected up to 80 letters, digits"),
    ("name twice", layer_set(1, name="features.conv1"), "expected a name that no other layer has"),
    ("cycle", swap_layers, f"{LAYERS}: it takes 'pool', which does not come before it"),
    ("own input", layer_set(1, inputs=["pool"]), "layer 1 ('pool'): it takes 'pool', which does not"),
    ("dangling", layer_set(1, inputs=["x"]), "it takes 'x', and no layer is called so; expected 'im"),
    ("no inputs", layer_set(0, inputs=[]), f"{LAYERS}: inputs is [], expected a list of 1 to 256"),
    ("unknown kind", layer_set(0, kind="exec"), f"{LAYERS}: kind is 'exec', expected one of conv, li"),
    ("kind is a list", layer_set(0, kind=[]), f"{LAYERS}: kind is [], expected one of conv, linear"),
    ("activation", layer_set(0, activation="eval"), "activation is 'eval', expected one of none, re"),
    ("slope", layer_set(0, activation="leaky_relu", slope=2), "slope is 2, expected 0 to 1"),
    ("slope of a relu", layer_set(0, activation="relu", slope=0.5), "expected it with leaky_relu al"),
    ("layer's field", layer_set(0, path="x"), f"{LAYERS}: it has a field 'path', expected name, kin"),
    ("no kernel", lambda content: content["layers"][0].pop("kernel") and None, "it has no kernel"),
    ("kernel is text", layer_set(0, kernel="3"), "kernel is '3', expected a whole number of 0 to 40"),
    ("kernel is true", layer_set(0, kernel=True), "kernel is True, expected a whole number of 0 to"),
    ("kernel of three", layer_set(0, kernel=[3] * 3), "kernel is [3, 3, 3], expected one number or 2"),
    ("negative", layer_set(0, padding=-1), "padding is -1, expected a whole number of 0 to 4096"),
    ("stride of 0", layer_set(0, stride=0), "stride is 0, expected a whole number of 1 to 4096"),
    ("fraction", layer_set(0, groups=1.5), "groups is 1.5, expected a whole number of 1 to 1048576"),
    ("flag", layer_set(0, bias="yes"), f"{LAYERS}: bias is 'yes', expected true or false"),
    ("epsilon", layer_set(0, epsilon=0), f"{LAYERS}: epsilon is 0, expected 1e-12 to 1"),
    ("absurd size", layer_set(0, out_channels=10**30), "out_channels is 1000000000000000000000000"),
    ("memory", wide, "responses to an image at a time, expected at most 268435456"),
    ("time", slow, "operations for an image, expected at most 549755813888"),
    ("does not fit", layer_set(2, in_channels=8), "'features.conv2' has in_channels 8, expected 16"),
    ("groups", layer_set(2, groups=3), "layer 'features.conv2' has groups 3, expected 1"),
    ("wrong size", layer_set(1, size=17), "layer 'pool' has size 17, expected 16"),
    ("nothing left", layer_set(0, kernel=99, padding=0), "layer 'features.conv1' has size 32, exp"),
    ("wrong end", whole_set(classes=["a", "b"]), "expected a global average or a linear layer of 2"),
    ("norm of a pooling", layer_set(1, norm=True), "it is max_pool with a norm, expected a convol"),
    ("mean of two", whole_set(mean=[1, 2]), "mean is [1, 2], expected three numbers of -10000 to 10"),
    ("std of 0", whole_set(std=[1, 0, 1]), "std is [1, 0, 1], expected three numbers of 0.001 to"),
    ("crop", whole_set(crop=[9, 8]), "crop is [9, 8], expected two whole numbers, whose quotient is"),
    ("image size", whole_set(image_size=8), "image_size is 8, expected a whole number of 16 to 1024"),
    ("classes", whole_set(classes=["a", ""]), "class 1 is '', expected a name"),
    ("surrogate", whole_set(classes=["\ud800"]), r"class 0 is '\ud800', expected up to 1000 char"),
    ("accuracy", whole_set(accuracy=75), "accuracy is 75, expected 0 to 1, or null"),
    ("topology", whole_set(topology="bush"), "topology is 'bush', expected one of orig, root, tree"),
    ("provenance", whole_set(provenance=[1]), "provenance is [1], expected an object"),
]  # fmt: skip


def put(path: Path, text: str, tensors: Tensors) -> Path:
    save_file(tensors, path, {MODEL_KEY: text})
    return path


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small(tmp_path_factory.mktemp("sound"), model_of("my-net"))


@pytest.mark.parametrize(
    ("change", "words"),
    [each[1:] for each in BROKEN_CONTENT],
    ids=[each[0] for each in BROKEN_CONTENT],
)
def test_a_broken_graph_is_refused_with_the_place_and_the_reason(
    sound: Path, tmp_path: Path, change: Callable[[Content], None], words: str
) -> None:
    content = content_of(read_model(sound))
    change(content)
    path = put(tmp_path / "my-net.safetensors", json.dumps(content), load_file(sound))
    with pytest.raises(WeightsError) as caught:
        read_model(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert words in text
    assert len(text) < len(str(path)) + 700
    assert "\n" not in text


BROKEN_TEXTS: list[tuple[str, Callable[[str], str], str]] = [
    ("no JSON", lambda text: text[:100], "Unterminated string starting at"),
    ("a number", lambda text: "7", "it is 7, expected an object"),
    ("NaN", lambda text: text.replace("120.0", "NaN"), "it has a number NaN, expected finite ones"),
    (
        "infinity",
        lambda text: text.replace("60.0", "Infinity"),
        "it has a number Infinity, expected",
    ),
    (
        "overflow",
        lambda text: text.replace("60.0", "1e999"),
        "std is [inf, 61.0, 62.0], expected th",
    ),
    ("deep", lambda text: "[" * 100_000, "it is nested too deeply"),
    ("long number", lambda text: text.replace("120.0", "1" * 5000), "Exceeds the limit"),
]


@pytest.mark.parametrize(
    ("change", "words"), [each[1:] for each in BROKEN_TEXTS], ids=[each[0] for each in BROKEN_TEXTS]
)
def test_metadata_that_are_no_model_are_refused(
    sound: Path, tmp_path: Path, change: Callable[[str], str], words: str
) -> None:
    text = change(json.dumps(content_of(read_model(sound))))
    path = put(tmp_path / "my-net.safetensors", text, load_file(sound))
    with pytest.raises(WeightsError) as caught:
        read_model(path)
    assert words in str(caught.value)


KEY = "graph.features-conv1.weight"
BROKEN_TENSORS: list[tuple[str, Callable[[Tensors], None], str]] = [
    ("missing", lambda tensors: tensors.pop(KEY) is None, f"of my-net; missing: {KEY}"),
    ("unexpected", lambda tensors: tensors.update(x=np.zeros(1)), "of my-net; unexpected: x"),
    ("shape", lambda tensors: tensors.update({KEY: np.zeros((16, 3, 3, 1), "f4")}),
     f"tensor {KEY} is [16, 3, 3, 1], my-net has [16, 3, 3, 3]"),
    ("doubles", lambda tensors: tensors.update({KEY: np.zeros((16, 3, 3, 3))}),
     f"tensor {KEY} is in F64, expected one of F16, F32"),
    ("whole numbers", lambda tensors: tensors.update({KEY: np.zeros((16, 3, 3, 3), "i8")}),
     f"tensor {KEY} is in I64, expected one of F16, F32"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "words"),
    [each[1:] for each in BROKEN_TENSORS],
    ids=[each[0] for each in BROKEN_TENSORS],
)
def test_other_tensors_than_the_graphs_are_refused_before_they_are_read(
    sound: Path, tmp_path: Path, change: Callable[[Tensors], None], words: str
) -> None:
    tensors = dict(load_file(sound))
    change(tensors)
    text = json.dumps(content_of(read_model(sound)))
    path = put(tmp_path / "my-net.safetensors", text, tensors)
    with pytest.raises(WeightsError) as caught:
        read_model(path)
    assert words in str(caught.value)


def test_values_that_are_not_finite_are_refused_when_they_are_read(
    sound: Path, tmp_path: Path
) -> None:
    tensors = dict(load_file(sound))
    tensors[KEY] = np.full_like(tensors[KEY], np.inf)
    text = json.dumps(content_of(read_model(sound)))
    path = put(tmp_path / "my-net.safetensors", text, tensors)
    variant, _ = open_weights(path)
    with pytest.raises(WeightsError, match=f"tensor {KEY} has values that are not finite"):
        load_network(path, variant)


BROKEN_FILES: list[tuple[str, Callable[[bytes], bytes], str]] = [
    ("empty", lambda content: b"", "is not a readable safetensors file"),
    (
        "text",
        lambda content: b"no weights at all",
        "is not a readable safetensors file: it would have a",
    ),
    ("cut short", lambda content: content[:-100], "is not a readable safetensors file"),
    ("too long", lambda content: content + b"more", "is not a readable safetensors file"),
    (
        "huge header",
        lambda content: struct.pack("<Q", 2**26) + content[8:],
        "of 67108864 bytes, ex",
    ),
    ("pickle", lambda content: b"\x80\x04\x95" + content, "expected at most 16777216"),
]


@pytest.mark.parametrize(
    ("change", "words"), [each[1:] for each in BROKEN_FILES], ids=[each[0] for each in BROKEN_FILES]
)
def test_what_is_no_safetensors_file_is_refused(
    sound: Path, tmp_path: Path, change: Callable[[bytes], bytes], words: str
) -> None:
    path = tmp_path / "my-net.safetensors"
    path.write_bytes(change(sound.read_bytes()))
    for read in (read_model, open_weights, lambda path: model_names(path.parent)):
        with pytest.raises(WeightsError) as caught:
            read(path)
        assert words in str(caught.value)


def test_a_file_that_is_no_model_says_so(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"x": np.zeros(3, np.float32)}, path)
    with pytest.raises(WeightsError, match=r"has no 'rootserve\.model' metadata; expected a model"):
        read_model(path)
    with pytest.raises(WeightsError, match="no usable 'rootserve' metadata"):
        open_weights(path)
    with pytest.raises(WeightsError, match=r"nowhere.* does not exist"):
        read_model(tmp_path / "nowhere.safetensors")


def test_two_thousand_spoilt_files_give_a_network_or_a_weights_error(tmp_path: Path) -> None:
    """Bytes of the header flipped, JSON fields replaced, layers moved: never another exception."""
    model = model_of("my-net", all_kinds())
    source = write_small(tmp_path, model)
    whole, tensors = source.read_bytes(), dict(load_file(source))
    content = json.dumps(content_of(read_model(source)))
    header = 8 + struct.unpack("<Q", whole[:8])[0]
    rng = np.random.default_rng(7)
    path = tmp_path / "spoilt.safetensors"
    refused = 0
    for number in range(2000):
        match number % 4:
            case 0:
                spoilt = bytearray(whole)
                for place in rng.integers(0, header, rng.integers(1, 4)):
                    spoilt[place] = rng.integers(0, 256)
                path.write_bytes(spoilt)
            case 1:
                path.write_bytes(whole[: rng.integers(0, len(whole))])
            case _:
                put(path, json.dumps(mutated(json.loads(content), rng)), tensors)
        try:
            variant, info = open_weights(path)
            assert info.variant == variant.name
            load_network(path, variant)
        except WeightsError:
            refused += 1
    assert 1800 < refused < 2000
