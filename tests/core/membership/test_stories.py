"""What one member does, second by second. Orders are drawn so that they are known: see `story.lowest`."""

from __future__ import annotations

import pytest

from abid.core.membership.messages import NOBODY, Ack, Answer, Ask, Probe, Rumour, State
from abid.core.membership.timings import SECOND, Settings
from tests.core.membership.story import Story, suspect

ALIVE, SUSPECT, DEAD, LEFT = State


def test_all_is_well() -> None:
    story = Story(4)
    story.answering = {2, 3, 4}
    assert story.until(4) == [
        "0 to 3: probe, asks for all",
        "1 to 4: probe",
        "2 to 2: probe",
        "3 to 4: probe",
        "4 to 2: probe",
    ]


def test_one_falls_silent() -> None:
    """Probed at 4, dead at 14: at 10 s of silence, for those who were asked did not reach it either."""
    story = Story(6)
    story.answering = {3, 4, 5, 6}
    assert story.until(14) == [
        "0 to 3: probe, asks for all",
        "1 to 4: probe",
        "2 to 5: probe",
        "3 to 6: probe",
        "4 to 2: probe",
        "5 to 4: probe",
        "5 to 4: ask for 2 (2 alive@0)",
        "5 to 3: ask for 2 (2 alive@0)",
        "5 to 6: ask for 2 (2 alive@0)",
        "6 to 5: probe",
        "7 2 is suspect",
        "7 to 6: probe (2 suspect@0)",
        "8 to 2: probe (2 suspect@0)",  # its turn again; it hears what is said of it
        "9 to 3: probe (2 suspect@0)",
        "9 to 4: ask for 2 (2 suspect@0)",
        "9 to 3: ask for 2 (2 suspect@0)",
        "9 to 6: ask for 2 (2 suspect@0)",
        "10 to 5: probe (2 suspect@0)",
        "11 to 2: probe (2 suspect@0)",  # the last look
        "11 to 5: ask for 2 (2 suspect@0)",
        "11 to 4: ask for 2 (2 suspect@0)",
        "11 to 3: ask for 2 (2 suspect@0)",
        "11 to 6: probe (2 suspect@0)",
        "12 to 3: probe",
        "13 to 4: probe",
        "14 2 is dead",
        "14 to 6: probe (2 dead@0)",
    ]


def test_where_nobody_answers_we_doubt_ourselves() -> None:
    """All fall silent at once: it may be us. The suspicions last longest, and we probe ever more slowly."""
    story = Story(6)
    assert len([line for line in story.until(3.9) if "probe" in line]) == 4
    story.until(10)
    assert story.membership.health.score == 4
    assert len([line for line in story.until(14) if "probe" in line]) == 2
    assert story.about(3) == ["3 3 is suspect"]
    story.until(30)
    assert story.about(3) == ["3 3 is suspect", "17 3 is dead"]


@pytest.mark.parametrize(("count", "seconds"), [(2, 10), (3, 10)])
def test_in_the_smallest_clusters_death_is_seen_as_soon(count: int, seconds: int) -> None:
    story = Story(count)
    story.answering = set(range(3, count + 1))
    probed = next(i for i, line in enumerate(story.until(60)) if "to 2: probe" in line)
    begin = float(story.lines[probed].split()[0])
    assert story.about(2) == [f"{begin + 3:g} 2 is suspect", f"{begin + seconds:g} 2 is dead"]


def test_one_who_is_reached_by_others_is_not_suspected() -> None:
    story = Story(6)
    story.answering = {3, 4, 5, 6}
    story.until(5)
    story.hear(4, Answer(0, 2, True))
    assert "7 2 is suspect" not in story.until(7.5)
    assert story.state(2) == ALIVE


def test_any_word_of_it_ends_the_round() -> None:
    story = Story(6)
    story.answering = {3, 4, 5, 6}
    story.until(4.5)
    assert story.hear(2, Probe(0)) == ["4.5 to 2: ack"]
    assert [line for line in story.until(7.5) if " 2" in line.partition(" ")[2]] == []


def test_a_connection_breaks() -> None:
    """Suspect at once, probed on a new connection and looked for through others at once; dead at 10 s, not sooner."""
    story = Story(6)
    story.answering = {3, 4, 5, 6}
    story.until(0.5)
    assert story.note(story.membership.on_broken(2, story.now)) == [
        "0.5 2 is suspect",
        "0.5 to 2: probe (2 suspect@0)",
        "0.5 to 3: ask for 2 (2 suspect@0)",
        "0.5 to 6: ask for 2 (2 suspect@0)",
        "0.5 to 5: ask for 2 (2 suspect@0)",
    ]
    story.until(20)
    assert story.about(2) == ["0.5 2 is suspect", "10.5 2 is dead"]


def test_a_connection_breaks_and_comes_back() -> None:
    story = Story(6)
    story.answering = {3, 4, 5, 6}
    story.until(0.5)
    story.note(story.membership.on_broken(2, story.now))
    story.until(0.6)
    assert story.hear(2, Ack(1)) == ["0.6 2 is alive"]
    story.answering.add(2)
    story.incarnation = 1
    story.until(60)
    assert story.about(2) == ["0.5 2 is suspect", "0.6 2 is alive"]


def test_a_goodbye_is_no_death() -> None:
    story = Story(4)
    story.answering = {3, 4}
    story.until(0.5)
    assert story.note(story.membership.on_goodbye(2, story.now)) == ["0.5 2 is left"]
    assert story.note(story.membership.on_broken(2, story.now)) == []
    assert [line for line in story.until(30) if "to 2" in line or "dial" in line] == []
    story.hear(2, Probe(1 << 32))
    assert story.about(2) == ["0.5 2 is left", "30 2 is alive"]


def test_hearsay_kills_nobody_but_makes_us_look() -> None:
    """Its accuser is never heard of again. After 14 s we look for ourselves; from then on it is our own suspicion."""
    story = Story(6, settings=Settings(asks_all_first=0, probe_every_ns=100 * SECOND))
    story.answering = {3, 4, 5, 6}
    story.until(1)
    story.tell(3, suspect(2, accuser=3))
    assert story.until(15) == ["15 to 2: probe (2 suspect@0)"]
    story.until(60)
    assert story.about(2) == ["1 2 is suspect", "25 2 is dead"]


def test_others_confirm_a_suspicion() -> None:
    """Those asked keep silent, but three more have found out the same at first hand: 7 s instead of 14."""
    story = Story(9)
    story.until(0.5)
    story.note(story.membership.on_broken(2, story.now))
    story.tell(3, suspect(2, accuser=3), suspect(2, accuser=3), suspect(2, accuser=2), suspect(2, accuser=NOBODY))
    story.tell(4, suspect(2, accuser=4), suspect(2, accuser=1))
    story.tell(5, suspect(2, accuser=5))
    story.until(40)
    assert story.about(2) == ["0.5 2 is suspect", "10.5 2 is dead"]


def test_a_late_answer_counts_and_is_no_lateness_of_ours() -> None:
    """Those asked answer 9 s later. The suspicion would have ended by then: its last look is at once."""
    story = Story(6, settings=Settings(asks_all_first=0, probe_every_ns=100 * SECOND))
    story.answering = {3, 4, 5, 6}
    story.until(0.5)
    story.answering = set()
    story.note(story.membership.on_broken(2, story.now))
    story.until(9.5)
    for helper in (3, 4, 5):
        story.hear(helper, Answer(0, 2, False))
    assert story.until(9.5)[0] == "9.5 to 2: probe (2 suspect@0)"
    assert story.membership.deaf_ns == 0
    assert "10.5 2 is dead" in story.until(10.5)


def test_one_accuser_counts_once() -> None:
    story = Story(9)
    story.until(0.5)
    story.note(story.membership.on_broken(2, story.now))
    for _ in range(3):
        story.tell(3, suspect(2, accuser=3))
    story.tell(3, suspect(2, accuser=77), suspect(2, accuser=78))  # no members
    story.until(40)
    assert story.about(2) == ["0.5 2 is suspect", "14 2 is dead"]


def test_we_are_suspected_and_refute_in_the_same_breath() -> None:
    story = Story(6)
    story.until(0.5)
    assert story.hear(2, Probe(0, (suspect(1, accuser=2),))) == ["0.5 to 2: ack (1 alive@1)"]
    assert story.membership.incarnation == 1
    assert story.membership.health.score == 1
    story.hear(3, Probe(0, (suspect(1, accuser=3),)))
    assert story.membership.incarnation == 1, "that was of before"
    assert story.hear(3, Probe(0, (Rumour(1, 1, DEAD),)))[0] == "0.5 to 3: ack (1 alive@2)"
    assert "(1 alive@2)" in story.until(1)[0]


def test_who_speaks_is_not_called_dead() -> None:
    """It answers, and yet does not refute: it has not heard of the suspicion. It hears of it, and stays suspect."""
    story = Story(6)
    story.answering = {2, 3, 4, 5, 6}
    story.until(0.5)
    story.note(story.membership.on_broken(2, story.now))
    assert "to 2: probe (2 suspect@0)" in "".join(story.until(60))
    assert story.about(2) == ["0.5 2 is suspect"]


def test_the_dead_are_dialled_and_come_back() -> None:
    story = Story(4)
    story.answering = {3, 4}
    story.tell(3, Rumour(2, 0, DEAD))
    dials = [line for line in story.until(35) if "dial" in line]
    assert dials == ["0 dial 2", "10 dial 2", "20 dial 2", "30 dial 2"]
    assert story.note(story.membership.on_connected(2, story.now)) == ["35 to 2: probe (2 dead@0)"]
    assert story.hear(2, Ack(1)) == ["35 2 is alive"]
    story.answering.add(2)
    assert [line for line in story.until(60) if "dial" in line] == []


def test_one_of_the_dead_speaks() -> None:
    story = Story(4)
    story.until(0)
    story.tell(3, Rumour(2, 0, DEAD))
    assert story.hear(2, Ask(0, 3))[-1] == "0 to 2: probe (2 dead@0)"
    assert story.hear(2, Probe(0)) == ["0 to 2: ack (2 dead@0)"]


def test_who_does_not_refute_is_not_probed_without_end() -> None:
    story = Story(4)
    story.tell(3, Rumour(2, 0, DEAD))
    story.note(story.membership.on_connected(2, story.now))
    assert story.hear(2, Ack(0)) == []


# For others.


def test_we_look_for_one_whom_another_cannot_reach() -> None:
    story = Story(6, settings=Settings(asks_all_first=0, probe_every_ns=100 * SECOND))
    story.until(0.5)
    assert story.hear(3, Ask(0, 2)) == ["0.5 to 2: probe"]
    assert story.hear(4, Ask(0, 2)) == [], "it is being looked for"
    assert story.hear(2, Ack(0)) == [
        "0.5 to 3: answer: 2 reached (2 alive@0)",
        "0.5 to 4: answer: 2 reached (2 alive@0)",
    ]
    story.hear(3, Ask(0, 2))
    assert story.until(1.5)[-1] == "1.5 to 3: answer: 2 not reached (2 alive@0)"


def test_asks_beyond_bounds_and_about_strangers_are_passed_over() -> None:
    story = Story(9, settings=Settings(asks_all_first=0, helping_max=2, probe_every_ns=100 * SECOND))
    assert [story.hear(3, Ask(0, target)) for target in (77, 4, 5, 6, 1)] == [
        [],
        ["0 to 4: probe"],
        ["0 to 5: probe"],
        [],
        [],
    ]
    assert [line for line in story.until(1) if "answer" in line] == [
        "1 to 3: answer: 4 not reached (4 alive@0)",
        "1 to 3: answer: 5 not reached (5 alive@0)",
    ]


# Newcomers, strangers, those who go.


def test_a_newcomer_asks_for_everybody_who_is_not_alive() -> None:
    story = Story(6, settings=Settings())
    story.answering = {2, 3, 4, 5, 6}
    asking = [line for line in story.until(9) if "probe" in line]
    assert [line for line in asking if "asks for all" in line] == asking[:3]
    story.hear(2, Probe(0, (Rumour(5, 0, LEFT), Rumour(6, 4, DEAD))))
    while story.membership.rumours.take(9, 9):  # all has been told often enough
        pass
    assert story.hear(2, Probe(0)) == ["9 to 2: ack"]
    assert story.hear(2, Probe(0, asks_all=True)) == ["9 to 2: ack (5 left@0, 6 dead@4)"]


def test_a_stranger_is_answered_and_not_believed() -> None:
    story = Story(4)
    assert story.hear(9, Probe(5, (Rumour(2, 0, DEAD), Rumour(9, 5, ALIVE)))) == ["0 to 9: ack"]
    assert story.hear(9, Ask(5, 2)) == []
    assert set(story.membership.members) == {2, 3, 4}
    assert story.state(2) == ALIVE
    story.hear(9, Probe(5, (suspect(1, accuser=9),)))
    assert story.membership.incarnation == 1


def test_members_come_and_go_as_agreed_on() -> None:
    story = Story(4)
    story.answering = {2, 3, 4}
    story.until(1.5)
    story.note(story.membership.on_broken(2, story.now))
    story.note(story.membership.on_broken(3, story.now))
    story.hear(4, Ask(0, 3))
    story.hear(3, Ask(0, 4))
    story.note(story.membership.configure([1, 3, 4, 7], story.now))
    story.answering = {3, 4, 7}
    assert [line for line in story.until(30) if " 2" in line.partition(" ")[2]] == []
    assert any("to 7: probe" in line for line in story.lines)
    story.note(story.membership.configure([1], story.now))
    assert story.until(60) == []
    assert story.note(story.membership.on_broken(3, story.now)) == []
    assert story.note(story.membership.on_goodbye(3, story.now)) == []
    assert repr(story.membership) == "<membership of 1: 0 of 0 others alive, <well>>"


def test_going_is_told_and_then_all_is_quiet() -> None:
    story = Story(6)
    story.until(0.5)
    assert story.note(story.membership.leave(story.now)) == [
        "0.5 to 3: probe (1 left@0)",
        "0.5 to 2: probe (1 left@0)",
        "0.5 to 6: probe (1 left@0)",
    ]
    assert story.until(60) == []
    assert story.hear(2, Probe(0, (Rumour(1, 0, DEAD),))) == []
    assert story.note(story.membership.on_broken(2, story.now)) == []
    assert story.note(story.membership.leave(story.now)) == []
    story.note(story.membership.on_resumed(story.now))
    assert story.until(1e6) == []


# A member that was deaf.


def test_a_stopped_member_accuses_nobody_for_its_own_silence() -> None:
    """SIGSTOP for 5 s with a probe under way; the answers lie in the kernel and are read after the first tick."""
    story = Story(4)
    story.answering = {3, 4}
    story.until(2.9)
    assert set(story.membership.rounds) == {2}
    story.now = round(7.9 * SECOND)
    assert story.note(story.membership.tick(story.now)) == []
    story.hear(2, Ack(0))
    story.answering = {2, 3, 4}
    story.until(60)
    assert [line for line in story.lines if " is " in line] == []


def test_a_stop_is_seen_whatever_comes_first_afterwards() -> None:
    """The broken connections of a long stop come before the tick."""
    story = Story(4)
    story.answering = {2, 3, 4}
    story.until(2.9)
    story.now = 60 * SECOND
    assert story.note(story.membership.on_broken(2, story.now)) == ["60 to 2: probe, asks for all"]
    story.until(120)
    assert [line for line in story.lines if " is " in line] == []


def test_who_is_always_late_goes_on_slowly_and_judges_late() -> None:
    """Each time it is woken half a second late: 10 s of silence on its clock take longer on everybody else's."""
    story = Story(6)
    story.answering = {3, 4, 5, 6}
    while not story.about(2) or "dead" not in story.about(2)[-1]:
        assert story.now < 300 * SECOND, "it never comes to an end"
        story.now = max(story.now, story.membership.wake_at) + SECOND // 2
        story.note(story.membership.tick(story.now))
    probed, dead = (float(line.split()[0]) for line in (_first(story, "to 2: probe"), story.about(2)[-1]))
    assert 15 < dead - probed < 60
    assert [line for line in story.lines if " is " in line] == story.about(2)


def _first(story: Story, what: str) -> str:
    return next(line for line in story.lines if what in line)


def test_a_deafness_that_the_shell_measured_itself_counts() -> None:
    story = Story(4)
    story.answering = {3, 4}
    story.until(4.5)
    probed = float(_first(story, "to 2: probe").split()[0])
    story.membership.on_deaf(2 * SECOND)
    story.until(60)
    assert story.about(2) == [f"{probed + 5:g} 2 is suspect", f"{probed + 12:g} 2 is dead"]


def test_a_suspended_host_judges_nobody_for_a_while() -> None:
    """Its connections are all gone, and the network takes 8 s to come back."""
    story = Story(5)
    story.answering = {2, 3, 4, 5}
    story.until(5.5)
    story.answering = set()
    begin = len(story.lines)
    story.note(story.membership.on_resumed(story.now))
    for number in (2, 3, 4, 5):
        story.note(story.membership.on_broken(number, story.now))
    story.until(13.5)
    assert [line for line in story.lines if " is " in line or "ask for" in line[:12]] == []
    assert "asks for all" in story.lines[begin]
    story.answering = {2, 3, 4, 5}
    story.until(60)
    assert [line for line in story.lines if " is " in line] == []


def test_suspicions_of_before_a_sleep_begin_again() -> None:
    story = Story(5)
    story.answering = {3, 4, 5}
    story.until(0.5)
    story.note(story.membership.on_broken(2, story.now))
    story.until(9)
    story.note(story.membership.on_resumed(story.now))
    story.until(60)
    assert story.about(2) == ["0.5 2 is suspect", "29 2 is dead"]
