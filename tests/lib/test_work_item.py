"""Tasks as bytes, and bytes that are none."""

from __future__ import annotations

import os
import pickle
import zlib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from abi.errors import PayloadCorrupt, PayloadError, PayloadTooLarge, PayloadTooNew, PayloadTruncated
from abi.work_item import HEADER, MAGIC, TASK_BYTES_MAX, TaskData, WorkItem, deserialize, serialize

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
items = st.builds(
    WorkItem,
    id=texts,
    priority=st.sampled_from(["low", "normal", "high", "critical"]),
    remaining_ms=st.none() | st.integers(0, 2**63),
    attempt=st.integers(1, 2**63),
    node=texts,
    error=texts,
)
tasks = st.builds(TaskData, payload_type=texts, user_data=st.binary(max_size=400), work_item=items)
SAMPLE = TaskData("matrix_multiply", bytes(range(256)), WorkItem("t1", "high", 1500, 2, "a3f1", "no such file"))


def framed(body: bytes, *, version: tuple[int, int] = (1, 0)) -> bytes:
    """A body with a header that fits it."""
    return HEADER.pack(MAGIC, *version, len(body), zlib.crc32(body)) + body


@given(tasks)
def test_a_task_comes_back_as_it_was(task: TaskData) -> None:
    data = serialize(task)
    back = deserialize(data)
    assert back == task
    assert type(back.user_data) is bytes
    assert serialize(back) == data


@given(tasks, st.data())
def test_cut_anywhere_it_is_truncated(task: TaskData, data: st.DataObject) -> None:
    whole = serialize(task)
    with pytest.raises(PayloadTruncated):
        deserialize(whole[: data.draw(st.integers(0, len(whole) - 1))])


def test_every_single_bit_matters() -> None:
    whole = bytearray(serialize(SAMPLE))
    kinds = set()
    for bit in range(8 * len(whole)):
        whole[bit // 8] ^= 1 << bit % 8
        if bit // 8 != 5:  # the minor version, which may be any
            with pytest.raises(PayloadError) as caught:
                deserialize(whole)
            kinds.add(type(caught.value))
        whole[bit // 8] ^= 1 << bit % 8
    assert kinds == {PayloadCorrupt, PayloadTruncated, PayloadTooLarge, PayloadTooNew}


@given(tasks, st.data())
def test_a_changed_stretch_is_noticed(task: TaskData, data: st.DataObject) -> None:
    """Up to four bytes in a row: what the checksum finds with certainty."""
    whole = bytearray(serialize(task))
    at = data.draw(st.integers(HEADER.size, len(whole) - 1))
    new = data.draw(st.binary(min_size=1, max_size=4))[: len(whole) - at]
    changed = whole[at : at + len(new)] != new
    whole[at : at + len(new)] = new
    if changed:
        with pytest.raises(PayloadCorrupt):
            deserialize(whole)
    else:
        assert deserialize(whole) == task


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_by_name(data: bytes) -> None:
    with pytest.raises(PayloadError):
        deserialize(data)


@given(st.binary(max_size=200))
def test_any_body_is_refused_by_name_though_its_checksum_fits(body: bytes) -> None:
    try:
        task = deserialize(framed(body))
    except PayloadCorrupt:
        return
    assert deserialize(serialize(task)) == task


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | texts | st.binary(max_size=20),
        lambda inner: st.lists(inner, max_size=6) | st.dictionaries(texts, inner, max_size=4),
    )
)
def test_any_message_is_refused_by_name_though_it_is_one(value: Any) -> None:
    try:
        task = deserialize(framed(msgspec.msgpack.encode(value)))
    except PayloadCorrupt:
        return
    assert deserialize(serialize(task)) == task


@pytest.mark.parametrize(
    "body",
    [
        ["t", b"d", ["id", "urgent"]],
        ["t", b"d", ["id", "low", -1]],
        ["t", b"d", ["id", "low", None, 0]],
        ["t" * 256, b"d"],
        ["t"],
        [b"t", "d"],
        {"payload_type": "t", "user_data": b"d"},
    ],
)
def test_what_fits_the_checksum_and_is_no_task(body: object) -> None:
    with pytest.raises(PayloadCorrupt, match="the checksum fits, but"):
        deserialize(framed(msgspec.msgpack.encode(body)))


def test_nesting_without_end_is_refused() -> None:
    with pytest.raises(PayloadCorrupt):
        deserialize(framed(b"\x91" * 1_000_000))


def test_bytes_behind_the_end() -> None:
    with pytest.raises(PayloadCorrupt, match="1 bytes follow the end"):
        deserialize(serialize(SAMPLE) + b"\0")


def test_a_future_version_is_refused_by_name_whatever_follows() -> None:
    for data in (framed(b"?", version=(2, 3)), framed(b"", version=(255, 0))):
        with pytest.raises(
            PayloadTooNew, match=r"the task is in format \d+\.\d, this version of abi reads 1\.x"
        ) as caught:
            deserialize(data)
        assert "upgrade" in caught.value.hint
    with pytest.raises(PayloadCorrupt, match=r"no task format 0\.9"):
        deserialize(framed(b"", version=(0, 9)))


def test_a_later_minor_version_may_say_more() -> None:
    body = msgspec.msgpack.encode(["t", b"d", ["id", "low", None, 1, "", "", "new"], {"new": 1}])
    assert deserialize(framed(body, version=(1, 7))) == TaskData("t", b"d", WorkItem("id", "low"))


def test_what_claims_to_be_too_large_is_refused_before_it_is_received() -> None:
    with pytest.raises(PayloadTooLarge, match=str(TASK_BYTES_MAX)):
        deserialize(HEADER.pack(MAGIC, 1, 0, TASK_BYTES_MAX + 1, 0))
    with pytest.raises(PayloadTruncated):
        deserialize(HEADER.pack(MAGIC, 1, 0, TASK_BYTES_MAX, 0))


def test_what_is_too_large_is_not_serialized() -> None:
    with pytest.raises(PayloadTooLarge, match="268435457 bytes"):
        serialize(TaskData("t", bytes(TASK_BYTES_MAX + 1)))  # zeroed lazily: it costs no memory


@pytest.mark.parametrize("kind", [bytearray, memoryview, lambda data: memoryview(data * 2)[::2]])
def test_any_bytes_like_object_is_bytes(kind: Any) -> None:
    data = serialize(TaskData("t", kind(b"aaaa")))
    assert data == serialize(TaskData("t", b"aaaa"))
    assert deserialize(memoryview(bytes(each for byte in data for each in (byte, 0)))[::2]).user_data == b"aaaa"
    assert deserialize(bytearray(data)).user_data == b"aaaa"


@pytest.mark.parametrize(
    ("task", "error", "said"),
    [
        (TaskData(b"t", b""), TypeError, "payload_type is a text, not bytes"),  # type: ignore[arg-type]
        (TaskData("t", "text"), TypeError, "user_data is bytes, not str"),  # type: ignore[arg-type]
        (TaskData("t", [1]), TypeError, "user_data is bytes, not list"),  # type: ignore[arg-type]
        (TaskData("t", b"", None), TypeError, "work_item is a WorkItem, not NoneType"),  # type: ignore[arg-type]
        (TaskData("t", b"", WorkItem(priority="urgent")), TypeError, "not a work item"),  # type: ignore[arg-type]
        (TaskData("t", b"", WorkItem(attempt=0)), TypeError, "not a work item"),
        (TaskData("t", b"", WorkItem(attempt=1 << 70)), ValueError, "more than 64 bits"),
        (TaskData("t" * 256, b""), ValueError, "256 bytes is longer than 255"),
        (TaskData("ü" * 128, b""), ValueError, "256 bytes is longer than 255"),
        (TaskData("\ud800", b""), ValueError, "no Unicode"),
        (TaskData("t", b"", WorkItem(error="\ud800")), ValueError, "no Unicode"),
    ],
)
def test_what_cannot_be_serialized_is_said(task: TaskData, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        serialize(task)


def test_only_bytes_are_deserialized() -> None:
    with pytest.raises(TypeError, match="bytes, not str"):
        deserialize("ABIT")  # type: ignore[arg-type]


class Bomb:
    """Its pickle makes a directory when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    bomb = pickle.dumps(Bomb(tmp_path / "bang"))
    assert deserialize(serialize(TaskData("t", bomb))).user_data == bomb
    for data in (bomb, framed(bomb), framed(msgspec.msgpack.encode([bomb, bomb, bomb]))):
        with pytest.raises(PayloadCorrupt):
            deserialize(data)
    assert not (tmp_path / "bang").exists()
    pickle.loads(bomb)
    assert (tmp_path / "bang").exists()  # it would have
