"""Who of the known members is alive: a rule without IO.

The idea is SWIM's (Das, Gupta, Motivala: "SWIM: Scalable Weakly-consistent Infection-style Process Group Membership
Protocol", DSN 2002; "the paper"): each member probes one other at a time, in shuffled order; who does not answer is
looked for through others, then suspected, and only later called dead; what anybody learned rides on the probes. The
care is Lifeguard's (Dadgar, Phillips, Currey: "Lifeguard: Local Health Awareness for More Accurate Failure Detection",
DSN-W 2018): who has reason to doubt itself waits longer, a suspicion that others confirm ends sooner, and a suspect
hears of it in the very next word that is sent to it.

Who *is* a member is agreed on elsewhere (`abid.core.raft`). Here nobody is admitted and nobody removed: news of a
stranger is passed over.

What reliable connections change. The papers speak of datagrams. Here words travel on TLS connections, which are made
on demand and kept:

- Words are not lost one by one and not reordered; they are late, or the connection breaks. So an answer carries no
  number: whatever a member says after it was asked shows that it is there.
- A connection that breaks without a goodbye is news at once. It is reason to suspect, never to call dead.
- Lifeguard's second try by TCP has no place, and rumours are bounded by a number we choose, not by a packet's size.
- Full mesh is what this comes to within as many seconds as there are members, so it is meant for clusters up to some
  hundreds; `./dev simulate membership` shows what a thousand would say to each other.

Whoever calls a member dead has itself asked others, three if there are so many. Who has a suspicion by hearsay only
looks for itself first. The papers let every member call the dead by its own clock. Who misses many at once may be the
one that is missed: it tells others only that it suspects them.

Files: ``membership`` takes the events; ``probing`` and ``suspecting`` are its rules; ``member`` owns the state machine;
``rumours`` spread; ``timings`` holds every time and number with its reason; ``health``, ``timers``, ``order``.
"""
