"""Payloads by size: inline up to 100 KiB, in shared memory above, and never in the daemon's own memory."""

from __future__ import annotations

import array
import gc
import hashlib
import mmap
import os
import pickle
from typing import Any

import pytest

import abi
from abi import errors
from abi.wire.schema import INLINE_BYTES_MAX
from tests.system.harness import BIN, Daemon
from tests.system.scripts import descriptors_of, memory_bytes, output_of
from tests.system.work import Buffer, digest, echo, make, total

pytestmark = pytest.mark.usefixtures("program")

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


def bytes_that_pickle_to(size: int) -> bytes:
    return bytes(size - (len(pickle.dumps(bytes(size), 5)) - size))


SIZES = [0, 1, 255, 256, INLINE_BYTES_MAX - 1, INLINE_BYTES_MAX, INLINE_BYTES_MAX + 1, MIB, 10 * MIB]


@pytest.mark.parametrize("size", SIZES)
def test_every_size_as_argument_result_and_object(size: int) -> None:
    value = os.urandom(len(bytes_that_pickle_to(size)) if size > 1000 else size)
    expected = hashlib.sha256(value).hexdigest()
    ref = abi.put(value)
    refs = [digest.remote(value), digest.remote(ref), digest.remote(data=ref), digest.remote(echo.remote(value))]
    assert abi.get(refs) == [expected] * 4
    assert abi.get(ref) == abi.get(echo.remote(value)) == abi.get(abi.put(value)) == value


@pytest.mark.parametrize("size", [0, INLINE_BYTES_MAX, INLINE_BYTES_MAX + 1, 10 * MIB])
def test_buffers_arrive_as_views(size: int) -> None:
    """As numpy's arrays do: without a copy above 100 KiB, and read-only then."""
    value = Buffer(bytearray(os.urandom(size)))
    got = abi.get(echo.remote(value))
    assert bytes(got.data) == bytes(value.data)
    if size > INLINE_BYTES_MAX:
        view = memoryview(got.data)
        assert view.readonly
        with pytest.raises(TypeError):
            view[0] = 1
    assert bytes(abi.get(abi.put(value)).data) == bytes(value.data)
    kept = memoryview(got.data)
    del got
    gc.collect()
    assert bytes(kept) == bytes(value.data), "a view keeps its memory"


def test_other_kinds_of_buffers() -> None:
    numbers = array.array("d", range(100_000))
    grid = memoryview(bytearray(4 * MIB)).cast("B", (2 * KIB, 2 * KIB))
    several = [Buffer(bytes([n]) * (200 * KIB)) for n in range(5)]
    assert abi.get(echo.remote(numbers)) == numbers
    assert bytes(abi.get(echo.remote(Buffer(numbers))).data) == numbers.tobytes()
    assert memoryview(abi.get(echo.remote(Buffer(grid))).data).nbytes == 4 * MIB
    assert [bytes(one.data)[:2] for one in abi.get(echo.remote(several))] == [bytes([n, n]) for n in range(5)]
    assert abi.get(echo.remote(bytearray(MIB))) == bytearray(MIB)
    assert abi.get(echo.remote("ü" * MIB)) == "ü" * MIB


def test_an_object_is_what_it_was_when_it_was_put() -> None:
    data = bytearray(MIB)
    ref = abi.put(Buffer(data))
    argument = digest.remote(Buffer(data))
    data[:] = b"\1" * MIB
    assert bytes(abi.get(ref).data) == bytes(MIB)
    assert abi.get(argument) == hashlib.sha256(bytes(MIB)).hexdigest()


def test_a_task_cannot_write_into_anothers_argument() -> None:
    @abi.remote
    def write(value: Any) -> str:
        try:
            memoryview(value.data)[0] = 1
        except TypeError as error:
            return str(error)
        return "written"

    ref = abi.put(Buffer(bytes(MIB)))
    assert abi.get([write.remote(ref), write.remote(ref)]) == ["cannot modify read-only memory"] * 2
    assert abi.get(ref).data[0] == 0


def test_a_gigabyte_passes_and_the_daemon_stays_as_it_is(program: Daemon) -> None:
    @abi.remote
    def gigabyte() -> Buffer:
        # Not touched where it is empty: what the test is about is the way from here on.
        data = mmap.mmap(-1, GIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        data[-1] = 7
        return Buffer(data)

    @abi.remote
    def last(value: Buffer) -> int:
        return int(memoryview(value.data)[-1])

    abi.get(echo.remote(1))
    before = memory_bytes(program.pid, "VmRSS")
    ref = gigabyte.remote()
    got = memoryview(abi.get(ref).data)
    assert (got.nbytes, got[-1]) == (GIB, 7)
    assert abi.get(last.remote(ref)) == 7
    assert memory_bytes(program.pid, "VmRSS") - before < 8 * MIB
    assert memory_bytes(program.pid, "VmHWM") - before < 16 * MIB, "not even for a moment"
    del got, ref


def test_a_large_argument_and_a_large_function() -> None:
    data = Buffer(bytearray(64 * MIB))
    assert abi.get(digest.remote(data)) == hashlib.sha256(bytes(64 * MIB)).hexdigest()
    table = os.urandom(3 * MIB)

    @abi.remote
    def look(at: int) -> int:
        return table[at]

    assert abi.get([look.remote(n) for n in range(20)]) == list(table[:20])


# --- many at once: what fits one by one must fit together -------------------------------------------------------------


def test_many_inline_arguments_in_a_row() -> None:
    """Of a function so quick that hundreds of calls make one batch for a worker: more than a frame may hold."""
    abi.get([echo.remote(None) for _ in range(3000)])
    value = bytes_that_pickle_to(INLINE_BYTES_MAX - 100)
    refs = [digest.remote(value) for _ in range(50)]
    assert len(set(abi.get(refs))) == 1

    @abi.remote
    def length(data: bytes) -> int:
        return len(data)

    abi.get([length.remote(b"") for _ in range(3000)])
    assert abi.get([length.remote(value) for _ in range(1000)]) == [len(value)] * 1000


def test_many_inline_results_in_a_row() -> None:
    size = INLINE_BYTES_MAX - 100
    values = abi.get([make.remote(size) for _ in range(500)])
    assert {len(value) for value in values} == {size}


def test_many_large_results_in_a_row(program: Daemon) -> None:
    before = descriptors_of(os.getpid()), descriptors_of(program.pid)
    values = abi.get([make.remote(INLINE_BYTES_MAX + 1000) for _ in range(500)])
    assert {len(value) for value in values} == {INLINE_BYTES_MAX + 1000}
    del values
    gc.collect()
    assert descriptors_of(os.getpid()) <= before[0] + 2


@pytest.mark.parametrize("size", [INLINE_BYTES_MAX - 100, INLINE_BYTES_MAX + 100])
def test_many_values_into_one_task(size: int) -> None:
    """Beyond what one frame may hold, in bytes or in descriptors."""

    @abi.remote
    def lengths(*values: bytes) -> int:
        return sum(map(len, values))

    refs = [make.remote(size) for _ in range(300)]
    assert abi.get(lengths.remote(*refs)) == 300 * size


def test_many_values_out_of_one_task() -> None:
    size = INLINE_BYTES_MAX - 100

    @abi.remote(num_returns=200)
    def parts() -> list[bytes]:
        return [bytes([n]) * size for n in range(200)]

    refs: Any = parts.remote()
    assert [value[0] for value in abi.get(refs)] == list(range(200))
    assert abi.get(total.remote(*[length_of.remote(ref) for ref in refs])) == 200 * size


@abi.remote
def length_of(value: bytes) -> int:
    return len(value)


def test_many_large_values_out_of_one_task() -> None:
    @abi.remote
    def parts(count: int) -> list[bytes]:
        return [bytes([n % 256]) * (INLINE_BYTES_MAX + 1000) for n in range(count)]

    refs: Any = parts.options(num_returns=250).remote(250)
    assert [value[0] for value in abi.get(refs)] == list(range(250))
    too_many: Any = parts.options(num_returns=300).remote(300)
    with pytest.raises(ValueError, match=r"300 values, too much for one task.*253"):
        abi.get(too_many)


def test_more_large_objects_than_files_a_program_may_open(program: Daemon) -> None:
    script = """
        import resource
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
        import abi

        @abi.remote
        def make(n):
            return bytes([n % 256]) * 110_000

        @abi.remote
        def first(data):
            return data[0]

        refs = [make.remote(n) for n in range(1100)]
        assert [value[0] for value in abi.get(refs)] == [n % 256 for n in range(1100)]
        put = [abi.put(bytes([n % 256]) * 110_000) for n in range(1100)]
        assert abi.get([first.remote(ref) for ref in put]) == [n % 256 for n in range(1100)]
        print("all there")
        """
    assert output_of(program, script) == "all there\n"


def test_a_result_that_finds_no_room_in_the_program(program: Daemon) -> None:
    script = """
        import resource
        import abi
        from abi.errors import TaskError

        @abi.remote
        def make(size):
            return b"x" * size

        assert abi.get(make.remote(200_000)) == b"x" * 200_000
        used = next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("VmSize"))
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (used + (80 << 20), hard))
        refs = [make.remote(size) for size in (1, 160 << 20, 2)]
        for number, ref in enumerate(refs):
            try:
                print(number, len(abi.get(ref, timeout=20)))
            except MemoryError as error:
                print(number, type(error).__name__, "cannot be mapped" in str(error), isinstance(error, TaskError))
        print(len(abi.get(make.remote(1 << 20), timeout=20)))
        """
    assert output_of(program, script).splitlines() == ["0 1", "1 TaskError(MemoryError) True True", "2 2", "1048576"]


def test_a_large_exception_arrives(program: Daemon) -> None:
    @abi.remote
    def shout(size: int) -> None:
        raise ValueError("x" * size)

    for size in (INLINE_BYTES_MAX + 1000, 5 * MIB, 40 * MIB):
        with pytest.raises(errors.TaskError, match="xxxx"):
            abi.get(shout.remote(size))
    assert abi.get(echo.remote(1)) == 1


def test_a_large_value_is_not_copied_on_its_way() -> None:
    """Five at once take less of our own memory than half of one."""
    ref = abi.put(Buffer(bytearray(100 * MIB)))
    before = memory_bytes(os.getpid())
    values = [abi.get(ref) for _ in range(5)]
    assert [memoryview(value.data).nbytes for value in values] == [100 * MIB] * 5
    assert memory_bytes(os.getpid()) - before < 50 * MIB


def test_more_large_objects_than_files_the_daemon_may_open() -> None:
    """What is too much is refused by an end that says so; everybody else goes on, and so does who lets go."""
    daemon = Daemon(before="import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (300, 300))")
    try:
        script = """
            import gc, subprocess, sys
            import abi

            SIZE = 110_000

            @abi.remote
            def make(n):
                return bytes([n % 256]) * SIZE

            @abi.remote
            def first(data):
                return data[0]

            def refused(ref):
                try:
                    abi.get(ref)
                except abi.errors.AbiError as error:
                    assert "large objects" in str(error), error
                    return 1
                return 0

            def go_on():
                gc.collect()
                while refused(first.remote(bytes(SIZE))):
                    pass
                assert abi.get(first.remote(make.remote(7))) == 7

            go_on()
            put = [abi.put(bytes([n % 256]) * SIZE) for n in range(400)]
            assert abi.get(put[399])[0] == 399 % 256, "it is here, at least"
            use = [first.remote(ref) for ref in put]
            print("put", 100 < sum(map(refused, use)) < 399)
            print("small ones", abi.get(first.remote(b"abc")))
            print("an argument", refused(first.remote(bytes(SIZE))))
            del put, use
            go_on()
            made = [make.remote(n) for n in range(400)]
            print("results", 100 < sum(map(refused, made)) < 399)
            print(subprocess.run([sys.argv[1], "status"], capture_output=True, text=True).returncode)
            print(subprocess.run([sys.executable, "-c", "import abi; print(abi.get(abi.remote(abs).remote(-3)))"],
                                 capture_output=True, text=True).stdout, end="")
            del made
            go_on()
            print("fine")
            """
        lines = output_of(daemon, script, str(BIN / "abi")).splitlines()
    finally:
        daemon.close()
    assert lines == ["put True", "small ones 97", "an argument 1", "results True", "0", "3", "fine"]
