"""Unix sockets at any path, with descriptors beside the bytes."""

import os
import resource
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from abi import transport
from abi.errors import ProtocolError


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with left, right:
        yield left, right


@pytest.mark.parametrize("length", [20, 107, 108, 300])
def test_bytes_pass_at_a_path_of_any_length(tmp_path: Path, length: int) -> None:
    path = str(tmp_path / "a.sock")
    while len(path) < length:
        directory = Path(path).parent / ("d" * max(1, min(80, length - len(path) - 1)))
        directory.mkdir()
        path = str(directory / "a.sock")
    with transport.listen(path) as listener, transport.dial(path, 5) as client:
        server, _ = listener.accept()
        with server:
            client.sendall(b"hi")
            assert server.recv(10) == b"hi"
            assert client.gettimeout() is None
            assert transport.peer_credentials(server) == (os.getpid(), os.getuid(), os.getgid())
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_a_stale_socket_is_replaced_and_a_file_is_not(tmp_path: Path) -> None:
    path = str(tmp_path / "a.sock")
    transport.listen(path).close()
    transport.listen(path).close()
    other = tmp_path / "precious"
    other.write_text("data")
    with pytest.raises(FileExistsError):
        transport.listen(str(other))
    assert other.read_text() == "data"


def test_dialling_says_what_is_wrong(tmp_path: Path) -> None:
    path = str(tmp_path / "a.sock")
    with pytest.raises(FileNotFoundError):
        transport.dial(path, 1)
    transport.listen(path).close()
    with pytest.raises(ConnectionRefusedError):
        transport.dial(path, 1)


def test_a_daemon_that_never_accepts_times_out(tmp_path: Path) -> None:
    path = str(tmp_path / "a.sock")
    with transport.listen(path) as listener:
        listener.listen(0)
        waiting = transport.dial(path, 1)
        with waiting, pytest.raises(TimeoutError):
            transport.dial(path, 0.01)


def test_descriptors_arrive_with_their_bytes(pair: tuple[socket.socket, socket.socket]) -> None:
    left, right = pair
    reader, writer = os.pipe()
    assert transport.send_with_fds(left, b"take this", [writer]) == 9
    os.close(writer)
    fds: list[int] = []
    assert transport.recv_with_fds(right, bytearray(100), fds) == b"take this"
    (received,) = fds
    assert not os.get_inheritable(received)
    os.write(received, b"through")
    assert os.read(reader, 100) == b"through"
    os.close(received)
    os.close(reader)


def test_bytes_without_descriptors(pair: tuple[socket.socket, socket.socket]) -> None:
    left, right = pair
    assert transport.send_with_fds(left, b"plain", []) == 5
    fds: list[int] = []
    assert transport.recv_with_fds(right, bytearray(100), fds) == b"plain"
    left.close()
    assert transport.recv_with_fds(right, bytearray(100), fds) == b""
    assert fds == []


def test_as_many_descriptors_as_the_kernel_allows(pair: tuple[socket.socket, socket.socket]) -> None:
    left, right = pair
    most = [0] * transport.MESSAGE_FDS_MAX
    transport.send_with_fds(left, b"x", most)
    fds: list[int] = []
    transport.recv_with_fds(right, bytearray(1), fds)
    for fd in fds:
        os.close(fd)
    assert len(fds) == transport.MESSAGE_FDS_MAX
    with pytest.raises(ValueError):
        transport.send_with_fds(left, b"x", [*most, 0])
    with pytest.raises(ValueError):
        transport.send_with_fds(left, b"", [0])


def test_descriptors_that_do_not_fit_are_an_error_and_leak_nothing() -> None:
    # In a process of its own: the limit of open files is the whole process's.
    done = subprocess.run([sys.executable, __file__], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "no room, none leaked\n"), done.stderr


def overflow() -> None:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    transport.send_with_fds(left, b"x", [0] * 20)
    before = len(os.listdir("/proc/self/fd"))
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 5, lowest + 5))
    fds: list[int] = []
    try:
        transport.recv_with_fds(right, bytearray(10), fds)
    except ProtocolError:
        leaked = len(os.listdir("/proc/self/fd")) - before
        print("no room, none leaked" if not leaked and not fds else f"{leaked} leaked")


if __name__ == "__main__":
    overflow()
