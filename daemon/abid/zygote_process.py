"""Starting a zygote, with nothing imported that it would have to wait for: it loads while the daemon does.

A first result from nothing waits for this process longer than for any other, so it is started before the daemon has
read its configuration, and through posix_spawn, since the module ``subprocess`` alone takes ten milliseconds to import.
"""

from __future__ import annotations

import os
import resource
import signal
import socket

STDERR_TAIL_BYTES = 4096
INHERITED_VARIABLES = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR")
_soft_limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
"""As this process was given it, before it took all that the host allows: what tasks and commands are to find."""


class ZygoteProcess:
    """The process and our end of its socket. Raises OSError when the interpreter cannot be executed."""

    def __init__(
        self,
        executable: str,
        flags: list[str],
        variables: dict[str, str],
        package_path: list[str],
        runtime_dir: str,
        estate_fd: int,
    ) -> None:
        self.sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.stderr_fd = os.memfd_create("abi-zygote-stderr", os.MFD_CLOEXEC)
        environment = {name: os.environ[name] for name in INHERITED_VARIABLES if name in os.environ} | variables
        path = [*package_path, *filter(None, [variables.get("PYTHONPATH")])]
        if path:
            environment["PYTHONPATH"] = os.pathsep.join(path)
        command = [executable, *flags, "-P", "-m", "abi_worker", runtime_dir]
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        with theirs:
            # Only what is duplicated here, and the estate, is left to it: all our descriptors are close-on-exec.
            inherited = os.dup(estate_fd)
            os.set_inheritable(inherited, True)
            os.set_inheritable(theirs.fileno(), True)
            raised, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (_soft_limit, hard))
            try:
                self.pid = os.posix_spawn(
                    executable,
                    [*command, "--socket", str(theirs.fileno()), "--lock", str(inherited)],
                    environment,
                    file_actions=[
                        (os.POSIX_SPAWN_DUP2, null, 0),
                        (os.POSIX_SPAWN_DUP2, self.stderr_fd, 1),
                        (os.POSIX_SPAWN_DUP2, self.stderr_fd, 2),
                    ],
                    setsid=True,
                    setsigmask=[],
                    setsigdef=[signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP],
                )
            except OSError:
                self.sock.close()
                os.close(self.stderr_fd)
                raise
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
                os.close(inherited)
                os.close(null)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)  # not reaped before ``wait``, so the number is still its own

    def wait(self) -> int:
        """Reap it: its exit code, or the negative number of the signal that ended it."""
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status)

    def stderr_tail(self) -> str:
        size = os.fstat(self.stderr_fd).st_size
        data = os.pread(self.stderr_fd, STDERR_TAIL_BYTES, max(0, size - STDERR_TAIL_BYTES))
        return data.decode("utf-8", "replace").strip()

    def close(self) -> None:
        os.close(self.stderr_fd)
