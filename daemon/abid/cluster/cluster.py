"""A host and its cluster: alone, a member, or on its way from one to the other.

Every daemon begins alone, with no port open. ``found`` makes a cluster of one, ``join`` a member of another's; both are
on disk before they are said to be done, and a start finds them again (``open``).
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from abi.config import Config
from abi.errors import AbiError, NetworkDisabled, UsageError
from abi.wire import incarnations, join_token
from abid.cluster import (
    advice,
    aside,
    certificates,
    credentials,
    finding,
    joining,
    leaving,
    listening,
    lost,
    recovering,
    secret,
    standing,
    token,
    twins,
)
from abid.cluster.about import of_none, of_one_outside
from abid.cluster.aside import Aside
from abid.cluster.asking import Refused
from abid.cluster.asking import done as _done
from abid.cluster.authority import Authority
from abid.cluster.certificates import Subject
from abid.cluster.credentials import Credentials
from abid.cluster.knocking import Newcomer, knock
from abid.cluster.member import Member
from abid.cluster.peer import Peer
from abid.cluster.refusal import Code
from abid.cluster.registering import Registering
from abid.cluster.renewal import renewed_if_ended
from abid.cluster.showing import shown
from abid.cluster.standing import Standing
from abid.cluster.vetting import READMIT
from abid.cluster.waking import Outside, Waking
from abid.core.cluster import commands
from abid.core.cluster.called import member_called
from abid.core.cluster.facts import Facts
from abid.core.raft.configuration import Configuration
from abid.core.raft.messages import Snapshot
from abid.raft_store import RaftStore
from abid.state import Identity

log = logging.getLogger(__name__)

FOLDER: Final = "cluster"
LEAD_S: Final = 10.0
"""For the only voter to lead: it waits for its disk, and for nobody else."""
CATCH_UP_S: Final = 10.0
"""For a newcomer to be told what the cluster has agreed on: a join is done when the host can take part."""


class NotMember(AbiError):
    """This host belongs to no cluster."""

    code = "not_member"


class IsMember(AbiError):
    """This host belongs to a cluster already."""

    code = "is_member"


class Cluster:
    """One host, from the start of its daemon on."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, config: Config, identity: Identity, host: str, state_dir: Path
    ) -> None:
        self.config = config
        self.member: Member | None = None
        self.removed = ""
        """Why this host is no member any more, if it was sent away."""
        self._aside: Aside | None = None
        """Why it stands aside, if it does."""
        self._next = ""
        """What has to be done before this host can join again."""
        self.port = 0
        self._loop = loop
        self._identity = identity
        self._host = host
        self._folder = state_dir / FOLDER
        self._busy = asyncio.Lock()
        self._readmission: asyncio.Task[None] | None = None
        self._waking = Waking(loop, self._wake)

    @property
    def is_enabled(self) -> bool:
        return bool(self.config.boolean("network.enabled"))

    @property
    def node(self) -> str:
        return self._identity.node.hex()

    async def open(self) -> None:
        """Be again what this host was. Where that cannot be, ``status`` says why, and what may pass is tried again."""
        if not (self.is_enabled and self._is_on_disk()):
            return
        noted = aside.load(self._folder)
        if noted is None:
            await self._waking.begin()
        else:
            self._stand_aside(noted)

    async def _wake(self) -> None:
        """As the member that this host was; a certificate that ran out is renewed first. Raises AbiError, OSError."""
        async with self._busy:
            if self.member is not None:
                return
            found = credentials.load(self._folder)
            if found is None:
                raise credentials.damaged(self._folder / credentials.MEMBER, "there is no such file")
            credentials.check_owner(found, self.node)
            stands = standing.load(self._folder)
            timeout_s = self.config.integer("network.connection_timeout_ms") / 1000
            places = tuple(dict.fromkeys((*finding.last_met(self._folder), *stands.hints)))
            await self._be(await renewed_if_ended(found, places, timeout_s), stands)

    def use(self, config: Config) -> None:
        """The configuration is another."""
        self.config = config
        if self.member is not None:
            self.member.config = config

    def close(self) -> None:
        """The daemon is ending."""
        self._waking.close()
        member, self.member = self.member, None
        if member is not None:
            member.close()

    # Founding and joining.

    async def found(self) -> dict[str, Any]:
        """A new cluster, of this host alone. Raises IsMember, NetworkDisabled, ConfigError, OSError."""
        async with self._busy:
            self._check_alone()
            port = await listening.free_port(self._loop, self.config)
            authority = Authority.found(secrets.token_hex(8), time.time())
            subject = Subject(self.node, authority.cluster, incarnations.FIRST)
            try:
                stands = await self._begin(subject, Facts(), 1, port)
                standing.save(self._folder, stands)
                # Last, since its being there makes a member of this host: who loses power before has founded nothing.
                found = await asyncio.to_thread(self._store_own, authority, subject)
                await self._lead(found, stands)
            except Exception:
                self._forget()
                raise
            log.info("founded cluster %s", authority.cluster)
            return self.status()

    async def create_token(self, uses: int, valid_s: float) -> dict[str, Any]:
        """Text by which others join. Raises NotMember, and what ``token.create`` does."""
        member = self._require()
        return await token.create(member, member.listening.checked(), uses, valid_s)

    async def tokens(self) -> dict[str, Any]:
        """Those that can be used. Raises NotMember, NoLeader."""
        return await token.listed(self._require())

    async def revoke_token(self, identity: str) -> dict[str, Any]:
        """Raises NotMember, NoLeader, and Refused where there is none of this id."""
        return await token.revoke(self._require(), identity)

    async def join(self, text: str, places: tuple[str, ...] = ()) -> dict[str, Any]:
        """Become a member of the cluster that a token is for; ``places``, HOST[:PORT], are dialled before those in the
        token.

        Raises IsMember, NetworkDisabled, UsageError, NameUnknown, PeerRefused, NodeUnreachable, NotLetIn,
        CertificateError, OSError.
        """
        async with self._busy:
            self._check_alone()
            places = await finding.named(places, self.config.integer("network.port"))
            read = join_token.parse(text)
            read = read._replace(addresses=(*places, *finding.registered(self._folder), *read.addresses))
            port = await listening.free_port(self._loop, self.config)
            us = Newcomer(self.node, self._identity.incarnation, self._host, listening.places_at(self.config, port))
            dial_s = self.config.integer("network.connection_timeout_ms") / 1000
            limit_s = self.config.integer("network.request_timeout_ms") / 1000
            try:
                authority, admitted, key = await knock(self._folder, read, us, dial_s, limit_s)
            except AbiError as error:
                advice.on_join(error, self._folder.parent)
                raise
            # Where a member answered just now may be the only place that leads there, whatever the others were told.
            hints = tuple(dict.fromkeys((*read.addresses, *(place for one in admitted.addresses for place in one))))
            stands = Standing(admitted.number, port, hints)
            standing.forget(self._folder)  # of a cluster that this host was about to leave when it lost its power
            standing.save(self._folder, stands)
            found = await asyncio.to_thread(  # last: its being there makes a member of this host
                credentials.store_member, self._folder, authority, admitted.certificate, key, admitted.secret
            )
            try:
                await self._be(found, stands)
            except (AbiError, OSError) as error:
                self._waking.again(error)
                raise
            member = self._require()
            if not await member.wait(lambda: self.node_is_known(member), CATCH_UP_S):
                raise joining.Unheard(admitted.number, CATCH_UP_S, bool(member.peers.connected), member.why_unheard)
            log.info("joined cluster %s as member %d", read.cluster, admitted.number)
            return self.status()

    @staticmethod
    def node_is_known(member: Member) -> bool:
        """Whether the facts that it has name itself."""
        return member.number in member.consensus.facts.members

    async def register(self, text: str) -> dict[str, Any]:
        """Dial this host now, and remember it. Raises NetworkDisabled, UsageError, NameUnknown."""
        return await self._registering().register(text)

    async def registered(self) -> dict[str, Any]:
        """What was registered here. Raises NetworkDisabled."""
        return self._registering().listed()

    async def unregister(self, text: str) -> dict[str, Any]:
        """Raises NetworkDisabled, UsageError, NotFound."""
        return await self._registering().unregister(text)

    def _registering(self) -> Registering:
        if not self.is_enabled:
            raise NetworkDisabled()
        discoverer, port = None if self.member is None else self.member.discoverer, self.config.integer("network.port")
        return Registering(discoverer, self._folder, port, lambda: listening.up(self.config))

    async def leave(self, *, force: bool = False) -> dict[str, Any]:
        """Be alone again. ``force``: whether the cluster agrees or not; ``agreed``: whether it did; ``next``: how this
        host would come back, if a token will not do. Raises NotMember, NoLeader, Refused."""
        async with self._busy:
            member, removed, agreed = self.member, self.removed, True
            takes_part = member is not None and member.lost is None
            if not takes_part and not removed and not (force and self._is_on_disk()):
                self._require()
            if member is None:
                agreed = bool(removed)
            elif member.lost is not None or len(member.consensus.facts.members) > 1:
                agreed = await (leaving.by_force(member) if force else self._say_goodbye(member))
            self._forget()
            self._next = aside.end(self._folder, self._aside)
            self.removed, self._aside = "", None
            log.info("left the cluster")
            then = advice.to_come_back(self._folder.parent) if removed else self._next
            return {"left": True, "agreed": agreed, "next": then}

    def _forget(self) -> None:
        """What made this host a member. Raises OSError."""
        self.close()
        credentials.forget(self._folder)
        standing.forget(self._folder)
        self.port = 0

    async def _say_goodbye(self, member: Member) -> bool:
        try:
            await leaving.by_agreement(member)
        except leaving.FAILURES as error:
            advice.on_leave(error)
            raise
        return True

    async def remove(self, which: str, *, sure: bool) -> dict[str, Any]:
        """Send a member away, for good; ``which`` is for ``member_called``. Raises Refused where nobody is ``sure``."""
        member = self._require()
        found = member_called(which, member.consensus.facts.members.values())
        if found.node == self.node:
            raise UsageError("this host itself leaves with `abi cluster leave`")
        if not sure:
            raise Refused(
                f"this would send node {found.node} ({found.name}) away for good: it is refused from then on, and "
                "comes back only as a new host",
                code="unsure", hint="--yes does it",
            )  # fmt: skip
        _done(await member.asking.command(commands.Remove, number=found.number, revoke=True))
        return {"removed": found.node}

    async def recover(self, *, sure: bool) -> dict[str, Any]:
        """Go on without the majority that is lost, as a cluster of one, in a new incarnation that the old refuses.

        Raises NotMember, and what ``recovering.plan`` does; OSError where the disk does not take it: this host is the
        member that it was then.
        """
        async with self._busy:
            member = self._require()
            plan = await recovering.plan(member, self._folder, sure=sure)
            facts = Facts.decoded(member.consensus.facts.encoded())  # the member goes on with its own if this fails
            subject = Subject(self.node, facts.cluster, plan.incarnation)
            stands = await self._begin(subject, facts, facts.next_number, self.port)
            # The standing comes after the certificate: who loses its power between the two is refused by the others,
            # and recovers again.
            try:
                recovering.check_goes_on(member, self.member)
                then = {standing.FILE: stands.encoded()}
                found = await asyncio.to_thread(self._store_own, plan.authority, subject, then)
            except Exception:
                standing.clear(stands.store_path(self._folder))
                raise
            self._pause(Outside("it is being recovered", "it takes a moment"))
            try:
                await self._lead(found, stands)
            except (AbiError, OSError) as error:
                self._waking.again(error)
                raise
            return plan.told

    def _store_own(
        self, authority: Authority, subject: Subject, then: Mapping[str, bytes] = credentials.NOTHING
    ) -> Credentials:
        """This host as the one that signs for itself; ``then`` is for ``store_member``."""
        key, request = certificates.new_key_and_request(subject)
        certificate = authority.sign(request, subject, time.time())
        credentials.store_authority_key(self._folder, authority.key_pem())
        return credentials.store_member(self._folder, authority.certificate, certificate, key, secret.draw(), then)

    async def _begin(self, subject: Subject, facts: Facts, number: int, port: int) -> Standing:
        """The log of a cluster of this host alone, on disk: what has been agreed on so far is where it begins. Nobody
        looks for it before the standing that is returned lies there, too."""
        command = commands.Found(
            origin=number, serial=self._identity.incarnation << 32, at_ms=int(time.time() * 1000), number=number,
            cluster=subject.cluster, incarnation=subject.incarnation, node=self.node, name=self._host,
            addresses=listening.places_at(self.config, port),
        )  # fmt: skip
        _done(facts.apply(command))
        stands = Standing(number, port, ())
        begin = Snapshot(1, 1, Configuration(voters=frozenset({number})), facts.encoded())
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        await standing.begin(stands.store_path(self._folder), begin)
        return stands

    async def _lead(self, found: Credentials, stands: Standing) -> None:
        await self._be(found, stands)
        member = self._require()
        member.consensus.stand()
        await member.wait(lambda: member.consensus.is_leader, LEAD_S)

    async def _be(self, found: Credentials, stands: Standing) -> None:
        """A member, from now on."""
        path = stands.store_path(self._folder)
        store = RaftStore(path)
        stored = await asyncio.to_thread(store.load)
        try:
            member = Member(
                self._loop, self.config, self._identity, stands.number, found, store, stored, self._on_member_failed,
                self._on_forgotten,
            )  # fmt: skip
        except BaseException:
            store.close()
            raise
        has_log = stored.snapshot.index > 0  # the log of every cluster begins with one
        member.hints, member.took_part = stands.hints, stands.took_part
        if stands.took_part and not has_log:
            lost.lose(member, path)
        here = twins.machine()
        member.peers.has_moved = stands.machine not in ("", here)
        try:
            port, may_move, or_any = listening.wanted(self.config, stands.port)
            self.port = await member.start(listening.up(self.config), port, may_move=may_move, or_any=or_any)
        except BaseException:
            member.peers.close()
            store.close()
            raise
        self.member, self._waking.outside = member, None
        now = stands._replace(port=self.port, machine=here, took_part=stands.took_part or has_log)
        if now != stands and not member.peers.has_moved and standing.is_saved(self._folder, now):
            member.took_part = now.took_part
        member.seek()
        member.announcing.begin(self._host)

    def _pause(self, why: Outside) -> None:
        """Until it is another member, in a moment: nobody is told meanwhile that it is none."""
        self.close()
        self._waking.outside = why

    def _on_forgotten(self, peer: Peer, missing: str) -> None:
        """This host's disk was restored, or its log is gone: go on as somebody who has promised nothing."""
        log.warning("this host has forgotten what it promised, and asks to be readmitted: %s", missing)
        if self._readmission is None and self.member is not None:
            self._readmission = self._loop.create_task(self._be_readmitted(self.member, peer))

    async def _be_readmitted(self, member: Member, peer: Peer) -> None:
        is_over = False
        try:
            said = await member.requests.ask(peer, READMIT, {"number": member.number}, member.request_timeout_s())
            async with self._busy:
                if self.member is not member:  # it has left meanwhile, say
                    return
                hints = tuple(place for one in member.consensus.facts.members.values() for place in one.addresses)
                stands = Standing(int(said["number"]), self.port, hints or member.hints)
                credentials_now, is_over = member.credentials, True
                self._pause(member.lost or Outside("it goes on as another member", "it takes a moment"))
                standing.clear(stands.store_path(self._folder))
                standing.save(self._folder, stands)
                await self._be(credentials_now, stands)
            log.info("readmitted as member %d", stands.number)
        except (AbiError, OSError) as error:
            log.error("this host could not be readmitted: %s", error)
            if is_over and self.member is None:
                self._waking.again(error)
        finally:
            self._readmission = None

    def _on_member_failed(self, error: AbiError) -> None:
        """This host is no member any more, or can be none as it is. What else runs on it goes on."""
        self.close()
        if error.code not in (Code.REVOKED, Code.COPY):
            self._waking.again(error)
            return
        try:
            noted = aside.stand(self._folder, error)
        except OSError as problem:
            log.error("that is not on the disk, and a restart has to be told again: %s", problem)
            noted = Aside(error.code, error.message, int(time.time() * 1000))
        self._stand_aside(noted)

    def _stand_aside(self, noted: Aside) -> None:
        self._aside = noted
        if noted.code == Code.REVOKED:
            self.removed = noted.why
            log.warning("this host was removed from its cluster: %s", noted.why)
        else:
            self._waking.outside = aside.outside(self._folder, noted)
            log.error("this host takes part no more: %s", self._waking.outside.why)

    # What it is.

    def _is_on_disk(self) -> bool:
        """That this host is a member; also where its certificate was lost, and where nobody can read what it is."""
        if (self._folder / credentials.MEMBER).exists():
            return True
        try:
            return standing.is_of_member(self._folder)
        except (AbiError, OSError):
            return True

    @property
    def _outside(self) -> Outside | None:
        """Why this host is out of its cluster, if it is a member and out of it."""
        return self._waking.outside if self.member is None else self.member.lost

    def _check_alone(self) -> None:
        if not self.is_enabled:
            raise NetworkDisabled()
        if self._next:
            raise IsMember("this host has the identity of the one that it was a copy of", hint=self._next)
        if self.removed:
            raise IsMember(f"this host was removed from its cluster: {self.removed}", hint=advice.LET_GO)
        if self.member is not None or self._is_on_disk():
            raise IsMember(
                "this host belongs to a cluster already",
                hint="`abi network status` shows it, `abi cluster leave` ends it",
            )

    def _require(self) -> Member:
        if not self.is_enabled:
            raise NetworkDisabled()
        if (outside := self._outside) is not None:
            raise outside.error()
        if self.removed:
            raise NotMember(f"this host was removed from its cluster: {self.removed}", hint=advice.LET_GO)
        if self.member is None:
            raise NotMember(
                "this host belongs to no cluster", hint="`abi cluster init` founds one, `abi cluster join` joins one"
            )
        return self.member

    # Names, which actors will have.

    async def name(self, op: str, name: str, owner: str = "") -> dict[str, Any]:
        """``claim``, ``release`` or ``get``. Raises NotMember, NoLeader, Refused."""
        member = self._require()
        if op == "get":
            return {"owner": _done(await member.asking.read("name", name=name)).value}
        kind = commands.ClaimName if op == "claim" else commands.ReleaseName
        return {"epoch": _done(await member.asking.command(kind, name=name, owner=owner)).value}

    def status(self) -> dict[str, Any]:
        """For `abi network status`, whatever this host is."""
        told = of_none(self.config, self.node, self._host, self.port, self.removed)
        if (outside := self._outside) is not None:
            return {**told, **of_one_outside(outside.why, outside.hint)}
        return told if self.member is None else {**told, "joined": True, **shown(self.member)}
