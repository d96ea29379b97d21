"""What bounds the rules' memory, and where the bounds come from."""

from __future__ import annotations

import gc

import pytest

from abi import config
from abi.errors import ProtocolError
from abi.wire.schema import ROOT, Function, Options
from abid.core.board import Limits
from abid.node import limits_of
from tests.core.fake_shell import FakeShell


def test_without_a_word_the_limits_are_those_of_the_configuration() -> None:
    defaults = config.load(None, environ={"HOME": "/nowhere", "XDG_CONFIG_HOME": "/nowhere"})
    assert limits_of(defaults) == Limits(processes_max=defaults.integer("workers.processes_max"))


def test_functions_may_not_fill_the_memory() -> None:
    shell = FakeShell(bytes_max=1000)
    session = shell.session()
    shell.define(session, ROOT, Function(1, b"g", "g", b"x" * 900))
    shell.define(session, ROOT, Function(2, b"g", "g", b"x" * 900))  # the same again takes no room
    with pytest.raises(ProtocolError, match=r"queue\.bytes_max allows 1000"):
        shell.define(session, ROOT, Function(3, b"h", "h", None, 200))
    shell.define(session, ROOT, Function(3, b"i", "i", b"x" * 90))  # what was refused takes no room either


def test_a_shape_goes_with_its_last_session() -> None:
    shell = FakeShell()
    session = shell.session()
    shell.define(session, ROOT, *[Options(n, cpus=n) for n in range(1, 50)])
    assert len(shell.core.board.shapes) == 50
    shell.core.close_session(session, shell.now)
    del session
    gc.collect()
    assert not shell.core.board.shapes
