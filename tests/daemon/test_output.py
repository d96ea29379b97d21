"""Lines of tasks: whole, in order, none lost, none merged."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from abid.output import CONTINUED, LINE_BYTES_MAX, STDERR, STDOUT, TAIL_LINES, Lines


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
    piece = b"." * LINE_BYTES_MAX
    assert lines.feed(1, STDOUT, piece) == b""
    assert lines.feed(1, STDOUT, b"!") == piece + b"\n"
    assert lines.finish(1) == [(STDOUT, CONTINUED + b"!\n")]
    assert not lines.unfinished
    assert lines.feed(1, STDOUT, b"next\n") == b"next\n"


def test_a_newline_after_a_cut_is_no_line() -> None:
    lines = Lines()
    assert lines.feed(1, STDERR, b"e" * LINE_BYTES_MAX + b"\n") == b"e" * LINE_BYTES_MAX + b"\n"
    assert lines.feed(1, STDERR, b"e" * LINE_BYTES_MAX * 2 + b"f") == (
        b"e" * LINE_BYTES_MAX + b"\n" + CONTINUED + b"e" * LINE_BYTES_MAX + b"\n"
    )
    assert lines.feed(1, STDERR, b"\n\nnext\n") == CONTINUED + b"f\n\nnext\n", "a blank line that was printed stays"


def test_no_letter_is_cut() -> None:
    lines = Lines()
    text = "x" + "…" * LINE_BYTES_MAX
    passed = lines.feed(1, STDOUT, text.encode() + b"\n")
    assert passed.decode().replace("\n… ", "") == text + "\n"
    assert max(map(len, passed.split(b"\n"))) <= LINE_BYTES_MAX + len(CONTINUED)


@given(st.lists(st.tuples(st.integers(0, 3 * LINE_BYTES_MAX), st.integers(0, 2)), max_size=6), st.integers(1, 9))
def test_no_line_is_invented_however_long_they_are(lengths: list[tuple[int, int]], cuts: int) -> None:
    written = b"".join(b"." * length + b"\n" * newlines for length, newlines in lengths)
    size = len(written) // cuts + 1
    lines = Lines()
    passed = b"".join(lines.feed(7, STDOUT, written[at : at + size]) for at in range(0, len(written), size))
    passed += b"".join(line for _, line in lines.finish(7))
    assert passed.replace(b"\n" + CONTINUED, b"") == written + (
        b"\n" if not written.endswith((b"\n",)) and written else b""
    )
    assert not lines.unfinished


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
