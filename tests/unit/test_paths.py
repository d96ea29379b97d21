"""Which directories, in which order, and which of them are refused."""

import os
import stat
from pathlib import Path

import pytest

from abi import mounts, paths
from abi.errors import ConfigError, Denied

UID = os.getuid()
TABLE = r"""22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:50 / /home rw,relatime shared:20 - nfs4 server:/home rw
31 30 8:2 / /home/local rw,relatime - xfs /dev/sdb1 rw
32 22 0:51 / /mnt/with\040space rw - fuse.sshfs me@host:/ rw
33 22 0:52 / /data rw master:7 - nfs server:/old rw
34 22 8:3 / /data rw - btrfs /dev/sdc rw
"""


def mode(path: str | Path) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def test_a_named_socket_is_the_only_one() -> None:
    environ = {"ABI_SOCKET": "/a/b.sock", "ABI_RUNTIME_DIR": "/c", "XDG_RUNTIME_DIR": "/tmp"}
    assert paths.candidates(environ) == ["/a/b.sock"]
    del environ["ABI_SOCKET"]
    assert paths.candidates(environ) == ["/c/abid.sock"]


def test_else_they_are_tried_in_order(tmp_path: Path) -> None:
    assert paths.candidates({"XDG_RUNTIME_DIR": str(tmp_path)}) == [
        f"{tmp_path}/abi/abid.sock",
        f"/tmp/abi-{UID}/abid.sock",
        "/run/abi/abid.sock",
    ]


@pytest.mark.parametrize("xdg", ["", "relative", "/does/not/exist", "/etc/passwd"])
def test_an_xdg_directory_that_is_none_does_not_apply(xdg: str) -> None:
    assert paths.candidates({"XDG_RUNTIME_DIR": xdg})[0] == f"/tmp/abi-{UID}/abid.sock"


def test_an_xdg_directory_of_another_user_does_not_apply(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "getuid", lambda: UID + 1)
    assert paths.candidates({"XDG_RUNTIME_DIR": str(tmp_path)})[0] == f"/tmp/abi-{UID + 1}/abid.sock"


def test_a_relative_path_is_made_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert paths.socket_path({"ABI_RUNTIME_DIR": "here"}) == f"{tmp_path}/here/abid.sock"


def test_the_system_socket_is_asked_for_by_a_flag() -> None:
    assert paths.socket_path({"ABI_SOCKET": "/a/b.sock"}, system=True) == "/run/abi/abid.sock"


def test_the_runtime_directory_is_made_private(tmp_path: Path) -> None:
    wanted = tmp_path / "deep" / "down"
    assert paths.runtime_dir({"ABI_RUNTIME_DIR": str(wanted)}) == str(wanted)
    assert mode(wanted) == 0o700


def test_a_runtime_directory_that_is_too_open_is_narrowed(tmp_path: Path) -> None:
    wanted = tmp_path / "open"
    wanted.mkdir()
    wanted.chmod(0o777)
    paths.runtime_dir({"ABI_RUNTIME_DIR": str(wanted)})
    assert mode(wanted) == 0o700


def test_the_directory_of_a_named_socket_is_never_narrowed_but_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with pytest.raises(Denied, match="others may enter"):
        paths.runtime_dir({"ABI_SOCKET": str(tmp_path / "my.sock")})
    assert mode(tmp_path) == 0o755


def test_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(Denied, match="symbolic link"):
        paths.runtime_dir({"ABI_RUNTIME_DIR": str(tmp_path / "link")})


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Denied, match="not a directory"):
        paths.runtime_dir({"ABI_RUNTIME_DIR": str(tmp_path / "file")})
    with pytest.raises(ConfigError, match="cannot make"):
        paths.runtime_dir({"ABI_RUNTIME_DIR": str(tmp_path / "file" / "below")})


def test_a_foreign_owner_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: UID + 1)
    with pytest.raises(Denied, match=f"belongs to uid {UID}"):
        paths.runtime_dir({"ABI_RUNTIME_DIR": str(tmp_path)})


def test_state_lies_where_it_is_said(tmp_path: Path) -> None:
    assert paths.state_dir({"ABI_STATE_DIR": str(tmp_path / "s")}) == (str(tmp_path / "s"), "")
    assert mode(tmp_path / "s") == 0o700
    expected = f"{tmp_path}/abi/{paths.machine_id()}"
    assert paths.state_dir({"XDG_STATE_HOME": str(tmp_path)}) == (expected, "")
    expected = f"{tmp_path}/.local/state/abi/{paths.machine_id()}"
    assert paths.state_dir({"HOME": str(tmp_path)}) == (expected, "")


@pytest.fixture
def local_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    base = tmp_path / "local"
    base.mkdir()
    monkeypatch.setattr(paths, "_LOCAL_BASES", (str(base),))
    return base


def test_state_is_never_on_a_network(tmp_path: Path, local_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "network_kind", lambda path: "nfs4" if "home" in path else "")
    directory, sentence = paths.state_dir({"HOME": str(tmp_path / "home")})
    assert directory == f"{local_base}/abi-{UID}/{paths.machine_id()}"
    assert "nfs4" in sentence
    assert directory in sentence
    assert mode(local_base / f"abi-{UID}") == 0o700
    assert not (tmp_path / "home").exists()


def test_two_named_state_directories_stay_apart(
    tmp_path: Path, local_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "network_kind", lambda path: "nfs4" if "home" in path else "")
    found = {paths.state_dir({"ABI_STATE_DIR": f"{tmp_path}/home/{name}"})[0] for name in "ab"}
    assert len(found) == 2


@pytest.mark.parametrize("home", ["", "/dev/null/none"])
def test_without_a_usable_home_state_is_local(home: str, local_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not home:
        import pwd

        def nobody(uid: int) -> object:
            raise KeyError(uid)

        monkeypatch.setattr(pwd, "getpwuid", nobody)
    directory, sentence = paths.state_dir({"HOME": home})
    assert directory.startswith(str(local_base))
    assert directory in sentence


def test_a_named_state_directory_that_cannot_be_made_is_an_error() -> None:
    with pytest.raises(ConfigError, match="cannot make"):
        paths.state_dir({"ABI_STATE_DIR": "/dev/null/none"})


def test_a_planted_local_directory_is_refused(tmp_path: Path, local_base: Path) -> None:
    (local_base / f"abi-{UID}").symlink_to(tmp_path)
    with pytest.raises(Denied):
        paths.state_dir({"HOME": "/dev/null/none"})


def test_an_empty_home_is_looked_up() -> None:
    assert paths.home({"HOME": ""}) == paths.home({})


@pytest.mark.parametrize("text", ["", "uninitialized\n", "../../etc"])
def test_a_machine_id_that_is_none_gives_way_to_the_host_name(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "machine-id").write_text(text)
    monkeypatch.setattr(paths, "_MACHINE_ID_FILES", (str(tmp_path / "machine-id"),))
    assert paths.machine_id() == os.uname().nodename


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/etc/abi", "ext4"),
        ("/home/me", "nfs4"),
        ("/home/local/me", "xfs"),
        ("/home/localhost", "nfs4"),
        ("/homework", "ext4"),
        ("/mnt/with space/x", "fuse.sshfs"),
        ("/data/x", "btrfs"),  # the later mount hides the earlier
    ],
)
def test_the_longest_mount_point_decides(path: str, kind: str) -> None:
    assert mounts.mounted_kind(path, TABLE) == kind


def test_network_kinds(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(TABLE)
    assert mounts.network_kind("/home/me", str(table)) == "nfs4"
    assert mounts.network_kind("/etc", str(table)) == ""
    assert mounts.network_kind("/etc", str(tmp_path / "missing")) == ""
