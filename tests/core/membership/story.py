"""One member, told what happens; what it does comes back as lines of words, with the second of each."""

from __future__ import annotations

from abid.core.membership.effects import Became, Dial, Effect, Send
from abid.core.membership.membership import Membership
from abid.core.membership.messages import Ack, Answer, Ask, Message, Probe, Rumour, State, decode, encode
from abid.core.membership.timings import SECOND, Settings

STATES = {State.ALIVE: "alive", State.SUSPECT: "suspect", State.DEAD: "dead", State.LEFT: "left"}


def lowest(low: int, high: int) -> int:
    """A lot that is always the lowest: orders are then what they are, and who is asked is known."""
    return low


def in_words(message: Message) -> str:
    match message:
        case Probe():
            words = "probe, asks for all" if message.asks_all else "probe"
        case Ack():
            words = "ack"
        case Ask():
            words = f"ask for {message.target}"
        case Answer():
            words = f"answer: {message.target} {'reached' if message.reached else 'not reached'}"
    said = [f"{rumour.member} {STATES[rumour.state]}@{rumour.incarnation}" for rumour in message.rumours]
    return words + (f" ({', '.join(said)})" if said else "")


class Story:
    """Member 1 of ``count``. Time begins at 0; nobody answers unless told to."""

    def __init__(self, count: int, *, incarnation: int = 0, settings: Settings | None = None) -> None:
        settings = settings or Settings(asks_all_first=0, asks_all_every=1 << 30)
        self.now = 0
        self.lines: list[str] = []
        self.membership = Membership(1, range(1, count + 1), 0, lowest, incarnation=incarnation, settings=settings)
        self.incarnation = 0
        """Of all others."""
        self.answering: set[int] = set()
        """They answer at once, and can reach each other."""

    def note(self, effects: list[Effect]) -> list[str]:
        """Adds what is done to the story, and returns it."""
        begin = len(self.lines)
        for effect in effects:
            at = f"{self.now / SECOND:g}"
            match effect:
                case Send():
                    assert decode(encode(effect.message)) == effect.message
                    self.lines.append(f"{at} to {effect.receiver}: {in_words(effect.message)}")
                    self._answer(effect.receiver, effect.message)
                case Became():
                    self.lines.append(f"{at} {effect.member} is {STATES[effect.state]}")
                case Dial():
                    self.lines.append(f"{at} dial {effect.member}")
        return self.lines[begin:]

    def _answer(self, receiver: int, message: Message) -> None:
        if receiver in self.answering:
            match message:
                case Probe():
                    self.hear(receiver, Ack(self.incarnation))
                case Ask():
                    self.hear(receiver, Answer(self.incarnation, message.target, message.target in self.answering))

    def until(self, second: float) -> list[str]:
        """Time passes; it is woken whenever it wants to be."""
        begin, end = len(self.lines), round(second * SECOND)
        while self.membership.wake_at <= end:
            self.now = max(self.now, self.membership.wake_at)
            self.note(self.membership.tick(self.now))
        self.now = max(self.now, end)
        return self.lines[begin:]

    def hear(self, sender: int, message: Message) -> list[str]:
        return self.note(self.membership.on_message(sender, message, self.now))

    def tell(self, sender: int, *rumours: Rumour) -> list[str]:
        """In an ack, which asks for nothing."""
        return self.hear(sender, Ack(0, rumours))

    def about(self, member: int) -> list[str]:
        """Changes of this one's state only."""
        return [line for line in self.lines if f" {member} is " in line]

    def state(self, member: int) -> State:
        return self.membership.members[member].state


def suspect(member: int, accuser: int, incarnation: int = 0) -> Rumour:
    return Rumour(member, incarnation, State.SUSPECT, accuser)
