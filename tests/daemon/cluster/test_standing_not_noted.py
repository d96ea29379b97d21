"""A member that runs, and a disk that does not take where it stands: it is one member, and the next start notes it."""

from __future__ import annotations

import json

from abid.cluster import standing
from tests.seed.members import Making

BEFORE = """
import errno, os
from abid.cluster import standing

save = standing.save

def fails(folder, stands):
    if os.path.exists(os.environ["ABI_STATE_DIR"] + "/full"):
        raise OSError(errno.ENOSPC, "No space left on device")
    save(folder, stands)

standing.save = fails
"""


def test_what_could_not_be_noted_is_at_the_next_start() -> None:
    making = Making()
    try:
        (host,) = making.add(1, before=BEFORE)
        host.ask("cluster-init")
        path, full = host.state_dir / "cluster" / standing.FILE, host.state_dir / "full"
        before = json.loads(path.read_text())
        assert before["took_part"]
        host.kill()
        host.wait()
        path.write_text(json.dumps({**before, "took_part": False}))  # as an earlier release left it
        full.touch()
        host.start()
        host.until(lambda told: told["role"] == "leader", "it takes part")
        assert host.ask("network-status")["port"] == before["port"]
        assert "it is not noted yet where this host stands" in host.log()
        assert not json.loads(path.read_text())["took_part"]
        full.unlink()
        host.kill()
        host.wait()
        host.start()
        host.until(lambda told: told["role"] == "leader", "it takes part again")
        assert json.loads(path.read_text()) == before
    finally:
        making.close()
