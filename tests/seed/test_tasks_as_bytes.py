"""The seed's row `serializeTask` in two forms, `deserializeTask` (details: tests/lib/test_work_item.py)."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from abi import network

MATRICES = struct.pack("<8d", *range(8))


def test_the_seeds_own_example() -> None:
    task = network.deserialize_task(network.serialize_task(network.WorkItem(), "matrix_multiply", MATRICES))
    assert (task.payload_type, task.user_data) == ("matrix_multiply", MATRICES)


@given(st.binary())
def test_byte_exact_round_trip_of_data(data: bytes) -> None:
    assert network.deserialize_task(network.serialize_task(data)).user_data == data


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60), st.binary())
def test_byte_exact_round_trip_with_a_type(payload_type: str, user_data: bytes) -> None:
    task = network.deserialize_task(network.serialize_task(network.WorkItem(), payload_type, user_data))
    assert (task.payload_type, task.user_data) == (payload_type, user_data)


def test_past_fault_task_frames_without_deadline_priority_error_text_or_the_node_that_ran_it() -> None:
    item = network.WorkItem(id="t1", priority="critical", remaining_ms=1500, attempt=2, node="a3f1", error="no space")
    assert network.deserialize_task(network.serialize_task(item, "t", b"")).work_item == item


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (lambda data: data[:-1] + b"?", network.PayloadCorrupt),
        (lambda data: b"GET / HTTP/1.1\r\n\r\n", network.PayloadCorrupt),
        (lambda data: data[:-1], network.PayloadTruncated),
        (lambda data: b"", network.PayloadTruncated),
        (lambda data: data[:6] + b"\xff\xff\xff\xff" + data[10:], network.PayloadTooLarge),
        (lambda data: data[:4] + b"\x02" + data[5:], network.PayloadTooNew),
    ],
)
def test_each_wrong_input_has_its_own_error(spoil: object, error: type[network.PayloadError]) -> None:
    data = network.serialize_task(network.WorkItem(), "t", MATRICES)
    assert callable(spoil)
    with pytest.raises(network.PayloadError) as caught:
        network.deserialize_task(spoil(data))
    assert type(caught.value) is error
