"""What tasks ask for decides which run at once: processors in ten-thousandths, memory, resources with names of their
own.

Who runs at a moment is told by the tasks themselves (``Ear``); that somebody does *not* run, by `abi status`, once the
daemon has counted it as queued and the resource as used up.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import abi
from abi import errors
from tests.system.harness import Daemon, eventually
from tests.system.inside import inside, session
from tests.system.tasks import descend, greedy, leaf, parent, stay
from tests.system.words import Ear, hold, let_go, say


@pytest.fixture
def ear(tmp_path: Path) -> Iterator[Ear]:
    made = Ear(tmp_path)
    yield made
    made.close()


def status(daemon: Daemon) -> Any:
    return daemon.ask("status")


def await_queued(daemon: Daemon, count: int) -> Any:
    """The status in which so many tasks wait for room, and nothing else moves."""
    return eventually(
        lambda: (said := status(daemon))["tasks"]["queued"] == count and said, f"{count} queued: {status(daemon)}"
    )


def test_processors_are_shared_out_in_ten_thousandths(ear: Ear, tmp_path: Path) -> None:
    gate = str(tmp_path / "gate")
    with inside(cpus=1) as daemon:
        most = stay.options(num_cpus=0.9998).remote("most", ear.path, gate)
        first, second, third = (stay.options(num_cpus=0.0001).remote(n, ear.path, gate) for n in "abc")
        assert len({ear.hear(), ear.hear(), ear.hear()}) == 3
        said = await_queued(daemon, 1)
        assert said["resources"]["cpus"] == {"total": 1, "free": 0}
        assert not ear.heard(), "four ran, and the fourth had no ten-thousandth left"
        let_go(gate)
        assert abi.get([most, first, second, third]) == ["most", "a", "b", "c"]
        eventually(lambda: status(daemon)["resources"]["cpus"]["free"] == 1, "all of it is free again")


def test_two_halves_run_at_once_and_a_third_waits(ear: Ear, tmp_path: Path) -> None:
    gates = [str(tmp_path / f"gate{n}") for n in range(3)]
    with inside(cpus=1) as daemon:
        half = stay.options(num_cpus=0.5)
        refs = [half.remote(str(n), ear.path, gates[n]) for n in range(3)]
        running = {ear.hear(), ear.hear()}
        await_queued(daemon, 1)
        assert not ear.heard()
        let_go(gates[int(running.pop())])
        ear.hear()
        for gate in gates:
            let_go(gate)
        assert abi.get(refs) == ["0", "1", "2"]


def test_a_task_of_no_processor_starts_while_all_are_taken(ear: Ear, tmp_path: Path) -> None:
    gate = str(tmp_path / "gate")
    with inside(cpus=1):
        whole = stay.remote("whole", ear.path, gate)
        assert ear.hear() == "whole"
        light = stay.options(num_cpus=0).remote("light", ear.path, gate)
        assert ear.hear() == "light"
        let_go(gate)
        assert abi.get([whole, light]) == ["whole", "light"]


def test_finer_steps_and_wrong_amounts_are_refused_where_they_are_written() -> None:
    with pytest.raises(ValueError, match=r"steps of 0\.0001"):
        abi.remote(num_cpus=0.00001)
    with pytest.raises(ValueError, match="from 0 to"):
        abi.remote(num_cpus=-1)
    with pytest.raises(TypeError, match="num_cpus must be a number"):
        abi.remote(num_cpus="two")  # type: ignore[call-overload]


def test_memory_is_admission(ear: Ear, tmp_path: Path) -> None:
    gate, free = str(tmp_path / "gate"), str(tmp_path / "free")
    with inside(cpus=8, config=f"[workers]\nmemory_bytes = {1 << 30}\n") as daemon:
        large = [stay.options(memory=600 << 20).remote(str(n), ear.path, gate) for n in range(2)]
        ear.hear()
        said = await_queued(daemon, 1)
        assert said["resources"]["memory"] == {"total": 1 << 30, "free": (1 << 30) - (600 << 20)}
        assert not ear.heard()
        small = stay.options(memory=400 << 20).remote("small", ear.path, free)
        assert ear.hear() == "small", "it fits beside the large one, and another large one does not keep it back"
        let_go(free)
        let_go(gate)
        assert abi.get([*large, small]) == ["0", "1", "small"]


def test_resources_with_names_of_their_own(ear: Ear, tmp_path: Path) -> None:
    gate = str(tmp_path / "gate")
    with inside(cpus=8, config="[workers]\nresources = { license = 1.5 }\n") as daemon:
        licensed = stay.options(resources={"license": 0.5}, num_cpus=0)
        refs = [licensed.remote(str(n), ear.path, gate) for n in range(4)]
        ear.hear_many(3)
        said = await_queued(daemon, 1)
        assert said["resources"]["custom"] == {"license": {"total": 1.5, "free": 0}}
        assert not ear.heard()
        let_go(gate)
        assert abi.get(refs) == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_cpus": 3}, ["3 CPUs", "has 2"]),
        ({"memory": 1 << 60}, ["GiB of memory", "this node has"]),
        ({"resources": {"license": 2}}, ["2 license", "has 1"]),
        ({"resources": {"licence": 1}}, ["1 licence", "does not have", "license"]),
        ({"num_gpus": 1}, ["1 GPU", "has 0"]),
        ({"num_gpus": 0.5}, ["gpus"]),
    ],
)
def test_what_nobody_has_is_refused_at_once(licensed: Daemon, options: dict[str, Any], words: list[str]) -> None:
    @abi.remote(**options)
    def never() -> None:
        raise AssertionError("it ran")

    with session(licensed), pytest.raises(errors.Refused) as refused:
        abi.get(never.remote(), timeout=30)
    for word in ["never", *words]:
        assert word in str(refused.value)


@pytest.fixture(scope="module")
def licensed() -> Iterator[Daemon]:
    made = Daemon(config="[workers]\nresources = { license = 1 }\n")
    yield made
    made.close()


def test_numerical_libraries_get_as_many_threads_as_the_task_has_processors(licensed: Daemon) -> None:
    def threads() -> str | None:
        return os.environ.get("OMP_NUM_THREADS")

    asked = [0.5, 1, 2, 1.5, 2, 0]
    with session(licensed):
        # One after the other, so that one worker runs them all: what one task may use says nothing about the next.
        found = [abi.get(abi.remote(num_cpus=cpus)(threads).remote()) for cpus in asked]
    assert found == ["1", "1", "2", "1", "2", "1"]


def test_the_number_of_threads_that_the_user_set_stays(licensed: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "5")

    @abi.remote(num_cpus=2)
    def threads() -> str | None:
        return os.environ.get("OMP_NUM_THREADS")

    with session(licensed):
        assert abi.get(threads.remote()) == "5"


# A task that waits for others gives its processors back.


def test_fifty_levels_of_waiting_tasks_need_one_processor() -> None:
    with inside(cpus=1) as daemon:
        assert abi.get(descend.remote(50), timeout=100) == 50
        said = status(daemon)
        assert said["resources"]["cpus"] == {"total": 1, "free": 1}
        assert said["workers"]["total"] <= 52, "one for each level, and no more"


def test_a_crowd_of_waiting_parents_takes_few_workers() -> None:
    with inside(cpus=1) as daemon:
        assert abi.get([parent.remote(n) for n in range(200)], timeout=100) == [3 * n for n in range(200)]
        said = status(daemon)
        assert said["resources"]["cpus"] == {"total": 1, "free": 1}
        assert said["workers"]["total"] <= 50, "children go before the next parent, so few parents wait at once"


@pytest.mark.parametrize("what", ["workers.processes_max", "memory"])
def test_what_waits_for_ever_is_told_so(what: str) -> None:
    """Too deep a nest for the processes there may be, or parents that hold the memory that their children ask for."""
    in_no_time = "import abid.core.deadlock\nabid.core.deadlock.DEADLOCK_NS = 300_000_000"
    config = f"[workers]\nprocesses_max = {4 if what == 'workers.processes_max' else 100}\nmemory_bytes = {1 << 30}\n"
    task = descend if what == "workers.processes_max" else greedy
    with inside(cpus=1, config=config, before=in_no_time) as daemon:
        with pytest.raises(errors.TaskError, match="it can never start") as refused:
            abi.get(task.remote(20), timeout=20)
        assert what in str(refused.value)
        assert abi.get(task.remote(2), timeout=20) == 2, "it fails alone"
        assert status(daemon)["resources"]["cpus"]["free"] == 1


def test_a_waiting_task_keeps_its_memory_and_gives_its_processor(ear: Ear, tmp_path: Path) -> None:
    gate, path = str(tmp_path / "gate"), ear.path

    @abi.remote(memory=600 << 20)
    def waits() -> str:
        return abi.get(stay.remote("child", path, gate))

    with inside(cpus=1, config=f"[workers]\nmemory_bytes = {1 << 30}\n") as daemon:
        ref = waits.remote()
        assert ear.hear() == "child"
        free = status(daemon)["resources"]
        assert free["cpus"]["free"] == 0, "the child has it"
        assert free["memory"]["free"] == (1 << 30) - (600 << 20)
        let_go(gate)
        assert abi.get(ref) == "child"


def test_wait_gives_the_processor_back_too() -> None:
    @abi.remote
    def waits() -> int:
        refs = [leaf.remote(n) for n in range(3)]
        ready, rest = abi.wait(refs, num_returns=3, timeout=20)
        assert not rest
        return sum(abi.get(ready))

    with inside(cpus=1):
        assert abi.get(waits.remote(), timeout=25) == 3


# Cards. The probe that finds real ones is a later matter; what is done with those it finds is not.


def test_cards_belong_to_one_worker_at_a_time_and_are_named_before_user_code_runs(ear: Ear, tmp_path: Path) -> None:
    gate, path = str(tmp_path / "gate"), ear.path

    @abi.remote(num_gpus=1, num_cpus=0)
    def draws(name: str) -> tuple[str, str | None, str | None, int]:
        say(path, name)
        hold(gate)
        return name, os.environ.get("CUDA_VISIBLE_DEVICES"), os.environ.get("CUDA_DEVICE_ORDER"), os.getpid()

    two_cards = "import abid.gpus\nabid.gpus.NoCards.uuids = lambda self: ['GPU-a', 'GPU-b']"
    with inside(before=two_cards) as daemon:
        refs = [draws.remote(str(n)) for n in range(3)]
        ear.hear_many(2)
        said = await_queued(daemon, 1)
        assert said["resources"]["gpus"] == {"total": 2, "free": 0}
        assert not ear.heard()
        let_go(gate)
        found = abi.get(refs, timeout=20)
        assert {found[0][1], found[1][1]} == {"GPU-a", "GPU-b"}
        assert {one[2] for one in found} == {"PCI_BUS_ID"}
        assert len({one[3] for one in found}) == 3, "one task to a process, which ends to give the card's memory back"
        with pytest.raises(errors.Refused, match="asks for 3 GPUs; this node has 2"):
            abi.get(draws.options(num_gpus=3).remote("never"), timeout=30)
