# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests as they come, and as they go wrong."""

import os
import re
import shutil
import signal
import socket
import time
from pathlib import Path

import pytest

from lab import dmesg, kernelmap, warm
from lab.deadline import Deadline, wait_until
from lab.errors import DeadlineError, GuestLost, HypervisorError
from lab.guest import Guest, Machine
from lab.rack import Rack
from lab.ssh import Connection, KeyPair
from lab.workshop import RunOptions
from tests.vm.conftest import Start, Workshops

STEP_S = 60.0


def said(guest: Guest, command: str) -> str:
    return guest.run(command, deadline=Deadline.after(STEP_S)).stdout.decode().strip()


def test_a_restored_guest_is_this_runs_own(start: Start, machine: Machine, rack: Rack) -> None:
    with start(log="1.log") as one, start(log="2.log") as two:
        assert one.warm and two.warm
        assert said(one, "uname -r") == machine.image.release
        assert abs(int(said(one, "date +%s")) - time.time()) < 30
        assert said(one, "cat /root/.ssh/authorized_keys") == rack.key.public
        assert said(one, "head -c 16 /dev/urandom | od -An -tx1") != said(two, "head -c 16 /dev/urandom | od -An -tx1")
        assert "0x11e8" in said(one, "cat /sys/bus/pci/devices/*/device")
        one.run("echo mine > /root/mark", deadline=Deadline.after(STEP_S))
        assert said(two, "test -e /root/mark || echo none") == "none"
    assert not rack.hypervisor.running(one.name)
    assert not list(rack.work.glob(f"{one.name}*"))


@pytest.mark.parametrize("kernel", ["bookworm", "trixie"])
def test_where_its_kernel_lies_is_known(
    kernel: str, arch: str, workshops: Workshops, rack: Rack, tmp_path: Path
) -> None:
    machine = workshops(RunOptions()).machine(arch, kernel, "standard")
    with warm.start(rack, machine, console_log=tmp_path / "console.log") as guest:
        told = said(guest, f"grep -E ' ({kernelmap.TEXT}|schedule)$' /proc/kallsyms").splitlines()
    here = {name: int(address, 16) for address, _, name in (line.split() for line in told)}
    kept = kernelmap.read(machine.image.folder)
    assert guest.text == here[kernelmap.TEXT]
    assert kept["schedule"].address - kept[kernelmap.TEXT].address == here["schedule"] - here[kernelmap.TEXT]


def test_a_cold_guest_boots(start: Start) -> None:
    with start(cold=True) as guest:
        assert not guest.warm
        assert float(said(guest, "cut -d' ' -f1 /proc/uptime")) < 120


def test_a_guest_cannot_leave_its_network(start: Start) -> None:
    def nc(guest: Guest, address: str, port: int) -> str:
        return said(guest, f"timeout 20 nc -w 5 {address} {port} </dev/null 2>&1 | head -n 1")

    with start() as guest, socket.create_server(("0.0.0.0", 0)) as server:  # noqa: S104 - as open as a host can be
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port), timeout=5), server.accept()[0]:
            pass  # somebody does listen
        # What follows is no failure of the guest's own: it has an address in that network, and its nc connects.
        assert "10.0.2.15" in said(guest, "ip addr")
        assert nc(guest, "10.0.2.15", 22).startswith("SSH-2.0")
        # 10.0.2.2 is the host, as the user network shows it. With restrict=off the connection arrives here,
        # and nc says nothing.
        told = nc(guest, "10.0.2.2", port)
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()
        assert re.search(r"refused|timed out|reset", told, re.IGNORECASE), told


def test_only_the_runs_key_opens_a_guest_and_only_its_own_host_key_is_taken(start: Start) -> None:
    with start() as guest:
        port = int(guest.xml().split("hostfwd=tcp:127.0.0.1:")[1].split("-")[0])
        with pytest.raises(DeadlineError):
            Connection.open(port, key=KeyPair.new(), host_key=_host_key(guest), deadline=Deadline.after(3))
        with pytest.raises(GuestLost, match="host key"):
            Connection.open(port, key=guest.rack.key, host_key="ssh-ed25519 AAAA", deadline=Deadline.after(STEP_S))


def test_a_panic_is_seen_on_the_console_at_once(start: Start) -> None:
    scanner = dmesg.Scanner()

    def watch(data: bytes) -> str | None:
        found = scanner.feed(data)
        return found[0].decisive if found else None

    with start(watch=watch) as guest, pytest.raises(GuestLost, match=r"sysrq|panic|NULL"):
        guest.run("sleep 0; echo c > /proc/sysrq-trigger; sleep 1000", deadline=Deadline.after(STEP_S))


def test_a_killed_qemu_is_a_lost_guest(start: Start, rack: Rack) -> None:
    with start() as guest:
        pid = rack.hypervisor.qemu_pid(guest.name)
        assert pid
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(GuestLost):
            guest.run("sleep 1000", deadline=Deadline.after(STEP_S))
        with pytest.raises(GuestLost):
            guest.run("true", deadline=Deadline.after(STEP_S))


def test_a_silent_command_is_given_up(start: Start) -> None:
    with start() as guest:
        with pytest.raises(DeadlineError, match="said nothing"):
            guest.run("echo begun; sleep 1000", deadline=Deadline.after(1000), progress_s=1.0)
        assert said(guest, "echo alive") == "alive"


def test_a_failing_command_says_what_the_guest_said(start: Start) -> None:
    with start() as guest, pytest.raises(HypervisorError, match="status 3 in the guest: no such luck"):
        guest.run("echo 'no such luck' >&2; exit 3", deadline=Deadline.after(STEP_S))


def test_megabytes_go_both_ways(start: Start) -> None:
    data = os.urandom(1 << 20)
    with start() as guest:
        done = guest.run("cat", stdin=data, deadline=Deadline.after(STEP_S))
    assert done.stdout == data


def test_a_damaged_warm_state_is_made_again(
    start: Start, rack: Rack, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = warm.ensure(rack, machine)
    bad = tmp_path / "warm"
    shutil.copytree(good, bad)
    with (bad / "disk.qcow2").open("r+b") as stream:
        stream.truncate(1 << 20)
    monkeypatch.setattr(warm, "folder", lambda _rack, _machine: bad)
    with start() as guest:
        assert said(guest, "echo alive") == "alive"
    assert (bad / "disk.qcow2").stat().st_size > 10 << 20


def test_a_guest_given_up_from_outside_ends_what_runs_in_it(start: Start) -> None:
    with start() as guest:
        guest.give_up("enough")
        with pytest.raises(GuestLost, match="enough"):
            guest.run("sleep 1000", deadline=Deadline.after(STEP_S))
    wait_until(lambda: not guest.rack.hypervisor.running(guest.name), "the guest's end", Deadline.after(STEP_S))


def _host_key(guest: Guest) -> str:
    assert guest.connection is not None
    return guest.connection.host_key
