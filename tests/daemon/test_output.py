"""Lines of tasks: whole, in order, none lost, none merged."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from abid.output import LINE_BYTES_MAX, STDERR, STDOUT, TAIL_LINES, Lines


def test_a_line_waits_for_its_end() -> None:
    lines = Lines()
    assert lines.feed(1, STDOUT, b"hel") == b""
    assert lines.feed(1, STDOUT, b"lo\nwor") == b"hello\n"
    assert lines.finish(1) == [(STDOUT, b"wor\n")]
    assert lines.finish(1) == []


def test_streams_and_tasks_are_never_merged() -> None:
    lines = Lines()
    assert lines.feed(1, STDOUT, b"out") == b""
    assert lines.feed(1, STDERR, b"err") == b""
    assert lines.feed(2, STDOUT, b"two\n") == b"two\n"
    assert lines.finish(1) == [(STDOUT, b"out\n"), (STDERR, b"err\n")]


def test_a_line_without_end_is_passed_on_in_pieces() -> None:
    lines = Lines()
    data = b"." * (LINE_BYTES_MAX + 1)
    assert lines.feed(1, STDOUT, data) == data + b"\n"
    assert lines.finish(1) == []


def test_the_tail_is_of_the_task_that_ran() -> None:
    lines = Lines()
    lines.feed(1, STDERR, b"old\n")
    for number in range(100):
        lines.feed(2, STDERR, b"line %d\n" % number)
    assert lines.tail(1) == ""
    assert lines.tail(2).splitlines() == [f"line {n}" for n in range(100 - TAIL_LINES, 100)]


@given(st.lists(st.binary(max_size=50), max_size=20))
def test_nothing_is_lost_however_it_is_cut(chunks: list[bytes]) -> None:
    lines = Lines()
    passed = b"".join(lines.feed(7, STDOUT, chunk) for chunk in chunks)
    passed += b"".join(line for _, line in lines.finish(7))
    written = b"".join(chunks)
    assert passed == written + (b"\n" if written and not written.endswith(b"\n") else b"")
