"""Coroutine functions: one event loop per worker, made for the first of them, since asyncio costs 60 ms to import."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

    from abi_worker.interrupt import Interrupts


class Coroutines:
    """Runs one coroutine at a time in the main thread. The loop stays, what a call left running in it does not."""

    def __init__(self, interrupts: Interrupts) -> None:
        self._interrupts = interrupts
        self._runner: asyncio.Runner | None = None

    def wrap(self, function: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            return self.run(function(*args, **kwargs))

        return run

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Its value. Raises what it raises; KeyboardInterrupt when it was cancelled because of an interrupt."""
        import asyncio

        if self._runner is None:
            self._runner = asyncio.Runner()
        interrupts = self._interrupts
        loop = self._runner.get_loop()
        asyncio.set_event_loop(loop)
        task = loop.create_task(coroutine)
        interrupts.main_task = task
        try:
            return loop.run_until_complete(task)
        except asyncio.CancelledError:
            if interrupts.meant():
                raise KeyboardInterrupt from None
            raise
        except KeyboardInterrupt:
            # Raised in the middle of the loop's own code: nothing in it can be relied upon any more.
            runner, self._runner = self._runner, None
            runner.close()
            raise
        finally:
            interrupts.main_task = None
            if self._runner is not None and (left := asyncio.all_tasks(loop)):
                self._cancel(loop, left)

    def _cancel(self, loop: asyncio.AbstractEventLoop, left: set[asyncio.Task[Any]]) -> None:
        """As ``asyncio.run`` does at its end: a task of one call does not run on in the next."""
        import asyncio

        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
