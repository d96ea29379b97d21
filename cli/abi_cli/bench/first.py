"""A program as short as a program can be: start, one no-op, its result. For `lines.first_result`."""

from __future__ import annotations

import sys

from abi_cli.bench.work import noop


def main(name: str, cores: int, directory: str) -> int:
    """Prints `first result` when it is there, then ends in order."""
    if name == "abi":
        _ours()
    else:
        _peer(name, cores, directory)
    return 0


def _ours() -> None:
    # What a user writes, and nothing of the bench's around it.
    import abi

    abi.init("private")  # nor a daemon that happens to run here
    value = abi.get(abi.remote(noop).remote())
    _say(value)
    abi.shutdown()


def _peer(name: str, cores: int, directory: str) -> None:
    from abi_cli.bench.claims import Setup
    from abi_cli.bench.contenders import make

    runtime = make(name, Setup(cores, directory))
    runtime.start(cores)
    try:
        (value,) = runtime.results([runtime.submitter(noop)()])
        _say(value)
    finally:
        runtime.stop()


def _say(value: object) -> None:
    if value is not None:
        raise RuntimeError(f"a no-op returned {value!r}")
    print("first result", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
