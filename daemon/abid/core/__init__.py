"""The rules of the daemon: which task runs where and when, and how it ends. No clock, no socket, no file, no thread.

Events go in (``Core.on_…``) with the time ``now`` in monotonic nanoseconds; what is to be done comes out
(``Core.effects``).
"""
