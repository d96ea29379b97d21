"""The door to the cluster: what people ask of it, and the cluster itself only where there is one.

A host that belongs to none loads neither cryptography nor SQLite (``ssl`` comes with the loop) and opens no port: all
that lies behind ``Network.cluster``, which is made when a member's credentials lie on the disk, or when somebody founds
or joins.

Clients are served before it is known whether this host is a member still, since that may take a while (a certificate
that ran out is renewed first). What they ask of the cluster waits until then: a member does not say that it is none.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from abi.config import Config
from abi.errors import AbiError, UsageError
from abid.cluster.about import of_none
from abid.state import Identity

if TYPE_CHECKING:
    from abid.cluster.cluster import Cluster
    from abid.control import Answer, Words
    from abid.node import Node

log = logging.getLogger(__name__)

CREDENTIALS: Final = Path("cluster", "node.pem")
"""Below the state directory, where this host is a member; see ``cluster.credentials``."""
STANDING: Final = Path("cluster", "standing.json")
"""The same, also where the other was lost; see ``cluster.standing``."""
USES_MAX: Final = 10_000
VALID_S_MAX: Final = 366 * 24 * 3600.0


class Network:
    """One host's. Whatever becomes of its membership, its daemon goes on."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        config: Callable[[], Config],
        identity: Identity,
        host: str,
        state_dir: Path,
    ) -> None:
        self._loop = loop
        self._config = config
        self._identity = identity
        self._host = host
        self._state_dir = state_dir
        self._cluster: Cluster | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._opened = asyncio.Event()

    async def open(self) -> None:
        """Be a member again, if this host was one. Raises AbiError and OSError. Cancelled, it is followed by ``close``,
        which tells those who wait."""
        try:
            is_one = any((self._state_dir / each).exists() for each in (CREDENTIALS, STANDING))
            if is_one and self._config().boolean("network.enabled"):
                await self.cluster.open()
        except Exception:
            self._opened.set()
            raise
        self._opened.set()

    def close(self) -> None:
        """The daemon is ending."""
        for task in self._tasks:
            task.cancel()
        if self._cluster is not None:
            self._cluster.close()

    @property
    def cluster(self) -> Cluster:
        if self._cluster is None:
            from abid.cluster.cluster import Cluster

            self._cluster = Cluster(self._loop, self._config(), self._identity, self._host, self._state_dir)
        return self._cluster

    def reload(self) -> None:
        """The configuration is another."""
        if self._cluster is not None:
            self._cluster.use(self._config())

    def status(self) -> dict[str, Any]:
        """For `abi network status`. Where nothing of the cluster is loaded, nothing is loaded for this."""
        if self._cluster is not None:
            return self._cluster.status()
        return of_none(self._config(), self._identity.node.hex(), self._host, 0, "")

    def answer_with_status(self, answer: Answer) -> None:
        """As soon as it is true."""

        async def work() -> dict[str, Any]:
            return self.status()

        if self._opened.is_set():
            answer.result(self.status())
        else:
            self.answer_later(answer, work())

    def answer_later(self, answer: Answer, work: Coroutine[Any, Any, dict[str, Any]]) -> None:
        """Begin when it is known what this host is, and tell the outcome."""
        task = self._loop.create_task(self._answer(answer, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, answer: Answer, work: Coroutine[Any, Any, dict[str, Any]]) -> None:
        try:
            await self._opened.wait()
            answer.result(await work)
        except AbiError as error:
            answer.fail(error)
        except OSError as error:
            answer.fail(AbiError(f"it could not be done: {error}"))
        except asyncio.CancelledError:
            answer.fail(AbiError("the daemon stopped before it was done", code="unreachable"))
            raise
        except Exception:
            log.exception("a request about the cluster could not be carried out")
            answer.fail(AbiError("the daemon could not do this; its log says why"))
        finally:
            work.close()


def _status(node: Node, words: Words, answer: Answer) -> None:
    node.network.answer_with_status(answer)


def _init(node: Node, words: Words, answer: Answer) -> None:
    node.network.answer_later(answer, node.network.cluster.found())


def _token(node: Node, words: Words, answer: Answer) -> None:
    uses, valid_s = int(words.get("uses", 1)), float(words.get("valid_s", 3600))
    if not 1 <= uses <= USES_MAX:
        raise UsageError(f"a token has 1 to {USES_MAX} uses, not {uses}")
    if not 1 <= valid_s <= VALID_S_MAX:
        raise UsageError("a token is valid for a second at least and a year at most")
    node.network.answer_later(answer, node.network.cluster.create_token(uses, valid_s))


def _tokens(node: Node, words: Words, answer: Answer) -> None:
    node.network.answer_later(answer, node.network.cluster.tokens())


def _revoke_token(node: Node, words: Words, answer: Answer) -> None:
    node.network.answer_later(answer, node.network.cluster.revoke_token(str(words["target"])))


def _join(node: Node, words: Words, answer: Answer) -> None:
    places = tuple(str(place) for place in words.get("addresses") or ())
    node.network.answer_later(answer, node.network.cluster.join(str(words["token"]), places))


def _leave(node: Node, words: Words, answer: Answer) -> None:
    node.network.answer_later(answer, node.network.cluster.leave(force=bool(words.get("force"))))


def _recover(node: Node, words: Words, answer: Answer) -> None:
    node.network.answer_later(answer, node.network.cluster.recover(sure=bool(words.get("sure"))))


def _remove(node: Node, words: Words, answer: Answer) -> None:
    """A program that does not say whether it is sure knows what it does; the command line asks."""
    sure = bool(words.get("sure", True))
    node.network.answer_later(answer, node.network.cluster.remove(str(words["target"]), sure=sure))


def _register(node: Node, words: Words, answer: Answer) -> None:
    node.network.answer_later(answer, node.network.cluster.register(str(words["host"])))


def _registered(node: Node, words: Words, answer: Answer) -> None:
    node.network.answer_later(answer, node.network.cluster.registered())


def _unregister(node: Node, words: Words, answer: Answer) -> None:
    node.network.answer_later(answer, node.network.cluster.unregister(str(words["host"])))


def _name(op: str) -> Callable[[Node, Words, Answer], None]:
    def handle(node: Node, words: Words, answer: Answer) -> None:
        owner = str(words.get("owner") or node.identity.hex())
        node.network.answer_later(answer, node.network.cluster.name(op, str(words["name"]), owner))

    return handle


OPERATIONS: Final[dict[str, Callable[[Any, Words, Answer], None]]] = {
    "network-status": _status,
    "network-register": _register,
    "network-registered": _registered,
    "network-unregister": _unregister,
    "network-remove": _remove,
    "cluster-init": _init,
    "cluster-token": _token,
    "cluster-tokens": _tokens,
    "cluster-token-revoke": _revoke_token,
    "cluster-join": _join,
    "cluster-leave": _leave,
    "cluster-recover": _recover,
    "name-claim": _name("claim"),
    "name-release": _name("release"),
    "name-get": _name("get"),
}
