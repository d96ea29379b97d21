"""etcd's scripts about majorities and configurations. Only results are compared: their pictures are their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from abid.core.raft.configuration import Configuration, ConfigurationError, Why
from abid.core.raft.progress import Progress, tracked
from abid.core.raft.quorum import EVERYTHING, Vote, agreed_by_both, counted_by_both
from tests.core.raft import in_words
from tests.core.raft.play import changes_of
from tests.core.raft.scripts import Step, files, needs_scripts, steps

pytestmark = needs_scripts

VOTES = {"VoteWon": Vote.WON, "VoteLost": Vote.LOST, "VotePending": Vote.PENDING}
SAID = {
    "config is already joint": Why.IS_JOINT,
    "can't apply simple config change in joint config": Why.IS_JOINT,
    "can't leave a non-joint config": Why.IS_NOT_JOINT,
    "can't make a zero-voter config joint": Why.NO_VOTER_YET,
    "removed all voters": Why.NO_VOTER_LEFT,
    "more than one voter changed without entering joint config": Why.MORE_THAN_ONE,
}


def numbers(step: Step, name: str) -> list[int]:
    return [int(word) for word in step.words.get(name, []) if word != "zero"]


def said(step: Step, name: str) -> dict[int, str]:
    """What each voter says, the first group's and then those that only the second has, in the order of the script."""
    voters = list(dict.fromkeys(numbers(step, "cfg") + numbers(step, "cfgj")))
    return {voter: word for voter, word in zip(voters, step.words.get(name, []), strict=True) if word != "_"}


@pytest.mark.parametrize("path", files("quorum"), ids=lambda path: path.stem)
def test_majorities(path: Path) -> None:
    count = 0
    for step in steps(path):
        groups = numbers(step, "cfg"), numbers(step, "cfgj")
        if step.command == "committed":
            stored = {voter: int(word) for voter, word in said(step, "idx").items()}
            last = step.expected[-1]
            expected = EVERYTHING if last.endswith("∞") else int(last)
            assert agreed_by_both(*groups, stored) == expected, step
            assert agreed_by_both(groups[1], groups[0], stored) == expected, step
        else:
            assert step.command == "vote"
            votes = {voter: word == "y" for voter, word in said(step, "votes").items()}
            assert counted_by_both(*groups, votes) == VOTES[step.expected[-1]], step
        count += 1
    assert count > 5


def show(configuration: Configuration, known: dict[int, Progress]) -> list[str]:
    """As the scripts write it, which know nothing of activity."""
    lines = [in_words.of_configuration(configuration)]
    for node, progress in sorted(known.items()):
        lines.append(f"{node}: {in_words.of_progress(progress, learner=node in configuration.learners)}")
    return lines


def changed(configuration: Configuration, step: Step) -> Configuration | Why:
    """The next configuration, or what is wrong with the change."""
    changes = changes_of(step.input)
    try:
        if step.command == "simple":
            return configuration.simple(changes)
        if step.command == "enter-joint":
            return configuration.enter_joint(changes, auto_leave=step.words.get("autoleave") == ["true"])
        assert step.command == "leave-joint"
        return configuration.leave_joint()
    except ConfigurationError as error:
        return error.why


@pytest.mark.parametrize("path", files("confchange"), ids=lambda path: path.stem)
def test_configurations(path: Path) -> None:
    configuration, known = Configuration(), dict[int, Progress]()
    script = list(steps(path))
    assert script
    for last_index, step in enumerate(script):
        found = changed(configuration, step)
        if isinstance(found, Why):
            assert SAID[step.expected[0]] == found, step
            continue
        configuration, known = found, tracked(known, found, last_index)
        assert show(configuration, known) == step.expected, step
