"""Shared memory: large payloads in sealed memfds, and one small page of facts per worker."""
