# SPDX-License-Identifier: GPL-2.0-or-later
"""Files on their way to a guest and back, with this host's shell and tar in the guest's place."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab import dmesg, testguest
from lab.errors import LabError
from lab.ssh import Done
from lab.testguest import CommandFailed, Guest
from lab.testlab import Running


def shell(command: str, *, stdin: bytes = b"", **_: Any) -> Done:
    if "/dev/kmsg" in command:
        return Done(0, b"", b"")
    done = subprocess.run(["sh", "-c", command], input=stdin, capture_output=True)
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def guest(tmp_path: Path) -> Guest:
    def put_tar(data: bytes, folder: str, **_: Any) -> None:
        assert shell(f"mkdir -p {folder} && tar -x -f - -C {folder}", stdin=data).status == 0

    inner: Any = SimpleNamespace(run=shell, put_tar=put_tar, lost="")
    machine: Any = SimpleNamespace()
    return Guest(Running(inner, machine, dmesg.Scanner(), tmp_path / "console.log", 1.0), "mark", splats_allowed=False)


def test_a_folder_goes_in_and_comes_out(guest: Guest, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "inner").mkdir(parents=True)
    (source / "inner/file").write_text("content\n")
    place = guest.put(source, f"{tmp_path}/a guest's/folder")
    assert place == f"{tmp_path}/a guest's/folder"
    back = guest.get(place, tmp_path / "back")
    assert (back / "inner/file").read_text() == "content\n"
    with pytest.raises(LabError, match="exists already"):
        guest.get(place, tmp_path / "back")
    with pytest.raises(CommandFailed, match="No such file"):
        guest.get(f"{tmp_path}/none", tmp_path / "none")


def test_paths_are_as_a_shell_in_its_home_has_them(
    guest: Guest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(testguest, "HOME", str(tmp_path / "root"))
    (tmp_path / "m.ko").write_text("x")
    assert guest.put(tmp_path / "m.ko") == guest.put(tmp_path / "m.ko", "m.ko") == f"{tmp_path}/root/m.ko"
    assert guest.put(tmp_path / "m.ko", "sub/") == f"{tmp_path}/root/sub/m.ko"
    assert guest.put(tmp_path / "m.ko", f"{tmp_path}/there/") == f"{tmp_path}/there/m.ko"
    assert guest.get("sub/m.ko", tmp_path / "back").read_text() == "x"


def archive(name: str, kind: bytes = tarfile.REGTYPE) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, "/etc/passwd"
        tar.addfile(info)
    return out.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        archive("/etc/x"),
        archive("f/../../x"),
        archive("other"),
        archive("f/x", tarfile.SYMTYPE),
        archive("f/x", b"6"),
        b"x",
    ],
)
def test_a_hostile_guest_writes_nowhere_else(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(LabError, match="the guest sent"):
        testguest._unpack(data, "f", tmp_path / "to" / "f")
    assert not list(tmp_path.rglob("x")) and not list(tmp_path.rglob("other"))
