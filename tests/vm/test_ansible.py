# SPDX-License-Identifier: GPL-2.0-or-later
"""The ansible roles, applied: lab_host to this machine, lab_nightly to a guest with systemd; twice each."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab import arch, hardware, host, image, paths
from lab.deadline import Deadline, wait_until
from lab.guest import Guest, Machine, boot
from lab.rack import Rack
from tests.vm import systemd
from tests.vm.conftest import KERNELS

PLAY_S, STEP_S = 900.0, 60.0
SITE = paths.REPOSITORY / "ansible" / "site.yml"

Play = Callable[..., dict[str, int]]

# Stands for the lab in the guest. It says what it was asked, tries what the lab and QEMU must be able to do in spite of
# the unit's hardening, and tries what they must not.
STAND_IN = """#!/bin/sh
echo "asked: $*"
[ "$1" = run ] || exit 0
exec python3 -S - <<'END'
import mmap, os, socket
mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
for name in ("LAB_CACHE_DIR", "LAB_STATE_DIR", "LAB_RUNTIME_DIR"):
    os.makedirs(os.environ[name], exist_ok=True)
unpacked = os.path.join(os.environ["LAB_CACHE_DIR"], "mount")
open(unpacked, "w").close()
os.chmod(unpacked, 0o4755)
socket.create_server(("127.0.0.1", 0)).close()
way = os.path.join(os.environ["LAB_RUNTIME_DIR"], "s")
socket.socket(socket.AF_UNIX).bind(way)
os.unlink(way)
open("/dev/urandom", "rb").read(8)
try:
    open("/usr/bin/mine", "w")
except OSError as e:
    print("refused:", e.strerror)
open("ran", "a").write("once\\n")
print("groups:", len(os.getgroups()), "user:", os.getuid() > 0)
END
"""


@pytest.fixture
def play(tmp_path: Path) -> Iterator[Play]:
    """Run the playbook on the hosts of an inventory; what its recap counts: ok, changed, failed, ..."""
    control = Path(f"/tmp/lab-ansible-{os.getpid()}")  # of ssh's sockets: their paths hold 108 bytes
    control.mkdir(mode=0o700)
    program = Path(sys.executable).with_name("ansible-playbook")
    more = {
        "ANSIBLE_HOME": str(tmp_path / "ansible"),
        "ANSIBLE_LOCALHOST_WARNING": "false",
        "ANSIBLE_NOCOLOR": "true",
        "ANSIBLE_PIPELINING": "true",
        "ANSIBLE_SSH_CONTROL_PATH_DIR": str(control),
        "ANSIBLE_SSH_TRANSFER_METHOD": "piped",
        "LC_ALL": "C.UTF-8",
    }

    def played(inventory: str, *words: str, fails: bool = False) -> dict[str, int]:
        argv = [program, "-i", inventory, *words, SITE]
        log = tmp_path / "ansible.log"
        with log.open("w") as out:  # there to be read when it hangs, too
            done = subprocess.run(argv, env={**os.environ, **more}, stdout=out, stderr=out, timeout=PLAY_S)
        text = log.read_text()
        print(text)
        assert (done.returncode != 0) == fails
        (recap,) = re.findall(r"^\S+ +: (ok=.*)$", text, re.MULTILINE)
        return {name: int(count) for name, count in re.findall(r"(\w+)=(\d+)", recap)}

    yield played
    shutil.rmtree(control)


@pytest.mark.skipif(os.getuid() != 0, reason="sets up this machine, as only root may")
def test_this_machine_is_a_lab_host(play: Play, tmp_path: Path) -> None:
    here = ("localhost,", "-c", "local", "--tags", "lab_host")
    more = ("-e", f"lab_host_cache={tmp_path / 'cache'}")
    play(*here, *more)
    assert (tmp_path / "cache").is_dir()
    assert play(*here, *more)["changed"] == 0
    assert host.missing_packages() == []


@pytest.fixture
def fresh(tmp_path: Path) -> tuple[str, ...]:
    """This machine as one that lacks a package, which no package list has, and the lab and its accounts."""
    (tmp_path / "hosts").write_text("[nightly]\nlocalhost ansible_connection=local ansible_become=false\n")
    facts = {
        "lab_host_packages_setup": ["no-such-package-here"],
        "lab_host_users": ["nobody-yet"],
        "lab_nightly_user": "nobody-yet",
        "lab_nightly_folder": str(tmp_path / "nowhere"),
    }
    return (str(tmp_path / "hosts"), "-e", json.dumps(facts))


def test_check_mode_on_a_fresh_host_says_what_it_would_do(play: Play, fresh: tuple[str, ...]) -> None:
    assert play(*fresh, "--check")["changed"] >= 3  # packages, groups, units


def test_a_night_without_a_lab_is_refused_before_anything_changes(play: Play, fresh: tuple[str, ...]) -> None:
    recap = play(*fresh, "--tags", "lab_nightly", fails=True)
    assert (recap["failed"], recap["changed"]) == (1, 0)


@pytest.fixture
def nightly(rack: Rack, tmp_path: Path) -> Iterator[Guest]:
    """A guest with systemd. aarch64, whose emulation is the quicker one on most hosts."""
    base = image.ensure(KERNELS["aarch64"], arch.get("aarch64"), progress=print)
    folder = tmp_path / "systemd"
    folder.mkdir()
    machine = Machine(
        image=systemd.image(base, folder),
        hardware=hardware.get("standard"),
        accel=host.accel(base.arch, "auto", progress=print).accel,
    )
    with boot(rack, machine, console_log=tmp_path / "console.log") as guest:
        yield guest


# Each of a role's steps is a Python that starts in an emulated guest: a quarter of a minute on a busy host.
@pytest.mark.timeout(2400)
def test_a_host_runs_the_lab_every_night(nightly: Guest, play: Play, tmp_path: Path) -> None:
    def said(command: str) -> str:
        deadline = Deadline.after(STEP_S * nightly.rack.scale)
        return nightly.run(command, deadline=deadline, check=False).stdout.decode().strip()

    inventory = tmp_path / "hosts"
    inventory.write_text(_inventory(nightly, tmp_path))
    words = (str(inventory), "--tags", "lab_nightly")
    asked = ("-e", '{"lab_nightly_on_change": "/bin/tell \\"50% $HOME\\"", "lab_nightly_keep": 7}')
    soon = ("-e", "lab_nightly_calendar=*:0/3", "-e", "lab_nightly_random_delay=0")

    nightly.put_tar(systemd.tar("lab", STAND_IN.encode()), "/opt/lab/.venv/bin", deadline=Deadline.after(STEP_S))
    assert play(*words, *asked, *soon)["changed"] > 0
    assert play(*words, *asked, *soon)["changed"] == 0

    # the timer fires; nobody else starts the service
    wait_until(
        lambda: said("cat /var/lib/lab-nightly/ran") != "", "the timer", Deadline.after(400 * nightly.rack.scale)
    )
    said("systemctl stop lab-nightly.timer")
    wait_until(
        lambda: said("systemctl show -P ActiveState lab-nightly.service") not in ("activating", "deactivating"),
        "the end of the run",
        Deadline.after(120 * nightly.rack.scale),
    )
    assert said("systemctl show -P Result lab-nightly.service") == "success"
    journal = said("journalctl -o cat -u lab-nightly.service")
    asked_for = [line.removeprefix("asked: ") for line in journal.splitlines() if line.startswith("asked: ")]
    results = "--results /var/lib/lab-nightly/results"
    assert asked_for[:3] == [
        "image rm sid",
        f'run matrix --profile nightly --build host {results} --on-change /bin/tell "50% $HOME"',
        f"gc {results} --keep 7 --days 90",
    ]
    assert "refused: Read-only file system" in journal
    assert "groups: 2 user: True" in journal
    assert said("systemd-analyze verify lab-nightly.service lab-nightly.timer 2>&1") == ""


def _inventory(guest: Guest, folder: Path) -> str:
    """The guest as ansible finds it: the forwarded port, the run's key, the pinned host key."""
    assert guest.connection is not None
    port = guest.xml().split("hostfwd=tcp:127.0.0.1:")[1].split("-")[0]
    key, hosts = folder / "key", folder / "known_hosts"
    key.touch(0o600)
    key.write_text(guest.rack.key.private)
    hosts.write_text(f"guest {guest.connection.host_key}\n")
    options = f"-o UserKnownHostsFile={hosts} -o HostKeyAlias=guest -o StrictHostKeyChecking=yes -o IdentitiesOnly=yes"
    facts = {
        "ansible_host": "127.0.0.1",
        "ansible_port": port,
        "ansible_user": "root",
        "ansible_ssh_private_key_file": str(key),
        "ansible_ssh_common_args": f"'{options}'",
    }
    return "[nightly]\nguest " + " ".join(f"{name}={value}" for name, value in facts.items()) + "\n"
