import os

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootserve.server.datagram import MAX_BYTES
from rootserve.server.workers import messages
from rootserve.server.workers.memory import SlotLayout, SlotMemory


@pytest.mark.parametrize(
    "message",
    [
        messages.Load("nin-orig", None, "", "fake", "fp32", (3, 32, 32), 10, 32),
        messages.Load(
            "nin-orig", "/w/nin-orig.safetensors", "ab", "torch", "bf16", (3, 32, 32), 10, 32, True
        ),
        messages.Run(7, "nin-orig", 1, ((1, "UINT8", 0), (2, "FP32", 123))),
        messages.Started("a cpu", {"torch": "2"}),
        messages.Run(7, "nin-orig", 1, ((1, "UINT8", 0),), beside=True),
        messages.Loaded("nin-orig", "torch", "fp32", 0.5, ((1, 0.001), (2, 0.002))),
        messages.Loaded("nin-orig", "openvino", "fp32", 0.5, ((1, 0.001),), "", 2, 1.7),
        messages.LoadFailed("nin-orig", "no such file"),
        messages.Done(7, 1, 2),
        messages.Done(7, 1, 2, (0, 3)),
        messages.Done(7, 1, 2, (0,), ((1, "row 0: bad"), (2, "row 3: bad too")), 1),
        messages.Decoding(7),
        messages.Failed(7, "boom"),
    ],
    ids=lambda message: type(message).__name__,
)
def test_messages_survive_the_way(message: messages.Message) -> None:
    assert messages.decode(messages.encode(message)) == message


@pytest.mark.parametrize(
    "datagram",
    [b"", b"{}", b'{"kind":"Swapp","model":"nin-orig"}', b'{"kind":"Swap","model":1}', b"[]"],
)
def test_what_is_no_message_is_refused(datagram: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        messages.decode(datagram)


def test_the_largest_batch_of_single_rows_fits_a_datagram() -> None:
    run = messages.Run(2**53, "nin-root-16", 1, ((1, "UINT8", 10**18),) * 1024)
    # Two of them must fit the socket as well, whose buffer has some 200 KB.
    assert len(messages.encode(run)) < MAX_BYTES / 2


@pytest.fixture
def memory():
    made, fd = SlotMemory.create(SlotLayout(slots=2, input_bytes=100, output_bytes=40))
    os.close(fd)
    yield made
    made.close()


@given(parts=st.lists(st.binary(max_size=50), max_size=2), slot=st.integers(0, 1))
def test_parts_lie_one_behind_the_other(parts: list[bytes], slot: int) -> None:
    memory, fd = SlotMemory.create(SlotLayout(slots=2, input_bytes=100, output_bytes=40))
    os.close(fd)
    memory.write_input(slot, tuple(parts))
    content = b"".join(parts)
    view = memory.input_view(slot, 0, len(content), np.uint8)
    assert view.tobytes() == content
    del view
    memory.close()


def test_slots_do_not_touch(memory: SlotMemory) -> None:
    memory.write_input(0, (b"a" * 100,))
    memory.write_output(0, np.full(10, 1, np.float32))
    memory.write_input(1, (b"b" * 100,))
    memory.write_output(1, np.full(10, 2, np.float32))
    assert memory.input_view(0, 0, 100, np.uint8).tobytes() == b"a" * 100
    assert memory.read_output(0, 8) == np.full(2, 1, np.float32).tobytes()
    assert memory.read_output(1, 40) == np.full(10, 2, np.float32).tobytes()


def test_what_does_not_fit_is_refused(memory: SlotMemory) -> None:
    with pytest.raises(ValueError, match="101 bytes"):
        memory.write_input(0, (b"a" * 101,))
    with pytest.raises(ValueError, match="44 bytes"):
        memory.write_output(0, np.zeros(11, np.float32))


def test_what_is_given_up_of_an_input_leaves_the_rest() -> None:
    layout = SlotLayout(slots=2, input_bytes=100_000, output_bytes=40)
    memory, fd = SlotMemory.create(layout)
    os.close(fd)
    for slot in range(2):
        memory.write_input(slot, (b"x" * 100_000,))
        memory.write_output(slot, np.full(10, 1, np.float32))
    memory.trim_input(0, 5000)
    kept, trimmed = memory.input_content(0)[:5000], memory.input_content(0)[20_000:80_000]
    assert kept == b"x" * 5000
    assert trimmed == bytes(60_000)
    assert memory.read_output(0, 40) == np.full(10, 1, np.float32).tobytes()
    assert memory.input_content(1) == b"x" * 100_000
    memory.trim_input(0, 99_999)
    kept.release()
    trimmed.release()
