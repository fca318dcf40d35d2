# SPDX-License-Identifier: GPL-2.0-or-later
"""A running guest: booted, or restored from saved memory; its console, its shell, its end."""

from __future__ import annotations

import logging
import secrets
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab import domain, halt, kernelmap, proc, ssh
from lab.console import Console
from lab.deadline import Deadline
from lab.errors import DeadlineError, GuestLost, HostError, HypervisorError
from lab.hardware import Hardware
from lab.host import Accel
from lab.image import Image
from lab.rack import Rack
from lab.seed import Keys, copy_sparse, seed_tar
from lab.ssh import Connection, Done, KeyPair
from lab.untrusted import one_line

log = logging.getLogger(__name__)

BOOT_S = 120.0  # on the reference host; scaled by the rack's measured speed
RESTORE_S = 40.0
STEP_S = 20.0
READY = "lab: ready"
ENDED = "QEMU ended by itself"
EDU = "0x1234:0x11e8"
PORT_TRIES = 5

# edu has no migration state: it leaves the guest before its memory is saved and comes back after.
EDU_AWAY = (
    "for d in /sys/bus/pci/devices/*; do "
    f'[ "$(cat $d/vendor):$(cat $d/device)" = {EDU} ] && echo 1 > $d/remove; done; true'
)
EDU_BACK = "echo 1 > /sys/bus/pci/rescan"
AUTHORIZED_KEYS = "/root/.ssh/authorized_keys"


@dataclass(frozen=True, slots=True)
class Machine:
    """What a guest is made of."""

    image: Image
    hardware: Hardware
    accel: Accel


class Guest:
    """A guest whose shell answers. Made by `boot` and `restore`, which also end it."""

    def __init__(self, name: str, machine: Machine, rack: Rack, console: Console, *, warm: bool) -> None:
        self.name = name
        self.machine = machine
        self.rack = rack
        self.console = console
        self.warm = warm
        self.text: int | None = None  # where its kernel's _stext lies, which is moved at each boot
        self.connection: Connection | None = None
        self.port = 0  # of its SSH, on 127.0.0.1
        self._lost = ""
        self._lock = threading.Lock()

    @property
    def gdb(self) -> Path:
        """The socket of QEMU's gdb stub. Whoever connects stops the guest."""
        return self.rack.root / f"{self.name}.gdb"

    @property
    def lost(self) -> str:
        """Why the guest was given up, or nothing."""
        return self._lost

    def stop_at_splats(self) -> None:
        """Have its kernel stop for good where it complains (Documentation/admin-guide/sysctl/kernel.rst, panic_on_*).

        However late it is frozen then, the CPU that complained is still where it did, and the others stand too.
        """
        switches = " ".join(f"/proc/sys/kernel/panic_on_{one}" for one in ("oops", "warn"))
        self.run(f"for f in {switches}; do echo 1 > $f; done", deadline=Deadline.after(STEP_S * self.rack.scale))

    def freeze(self) -> None:
        """Let no CPU of it run on; nothing happens when it stands still. HypervisorError when libvirt cannot.

        Never from the console's thread: QEMU's pl011 waits, byte by byte, for whoever reads the line, and with it all
        of QEMU, its monitor included, which would have to stop the CPUs.
        """
        self.rack.hypervisor.suspend(self.name)

    def give_up(self, reason: str) -> None:
        """End whatever runs in the guest with GuestLost; called from the console's thread."""
        with self._lock:
            self._lost = self._lost or reason
            connection = self.connection
        if connection is not None:
            connection.abort(reason)

    def attach(self, connection: Connection) -> None:
        """Use this connection from now on."""
        with self._lock:
            self.connection = connection
        if self._lost:
            connection.abort(self._lost)

    def run(
        self,
        command: str,
        *,
        deadline: Deadline,
        stdin: bytes = b"",
        check: bool = True,
        on_line: Callable[[bytes], None] | None = None,
        progress_s: float | None = None,
    ) -> Done:
        """Run a shell command in the guest.

        Raises GuestLost when the guest crashed or ended, DeadlineError when time is up or (with
        `progress_s`) the command was silent for too long, HostError when the reason of either is the
        host's disk, HypervisorError on a non-zero status unless `check` is false.
        """
        if self.connection is None or self._lost:
            raise GuestLost(self._lost or "the guest has no connection")
        with _explained(self.rack, self.name):
            done = self.connection.run(command, deadline=deadline, stdin=stdin, on_line=on_line, progress_s=progress_s)
        if check and done.status != 0:
            said = one_line(done.stderr) or one_line(done.stdout) or "it said nothing"
            raise HypervisorError(f"'{one_line(command, 80)}' ended with status {done.status} in the guest: {said}")
        return done

    def put_tar(self, data: bytes, folder: str, *, deadline: Deadline, then: str = "true") -> None:
        """Unpack a tar archive into a folder of the guest, and run one more command, sooner than by itself."""
        unpack = f"busybox mkdir -p {folder} && busybox tar -x -f - -C {folder}"  # linked statically: sooner there
        self.run(f"{unpack} && {then}", stdin=data, deadline=deadline)

    def get_tar(self, folder: str, names: str, *, deadline: Deadline) -> bytes:
        """A tar archive of files of a folder of the guest; `names` are shell patterns."""
        return self.run(f"cd {folder} && tar -c -f - {names}", deadline=deadline).stdout

    def xml(self) -> str:
        """The live libvirt XML."""
        return self.rack.hypervisor.xml(self.name)


@contextmanager
def boot(
    rack: Rack,
    machine: Machine,
    *,
    console_log: Path,
    watch: Callable[[bytes], str | None] = lambda _data: None,
    overlay: Path | None = None,
    keys: tuple[KeyPair, KeyPair] | None = None,
) -> Iterator[Guest]:
    """Boot a guest from nothing and end it on the way out.

    `watch` sees the console's bytes and returns a reason to give the guest up. `overlay` is made
    (the rack's own by default); `keys` are (client, host), fresh by default.
    """
    client, host = keys or (rack.key, KeyPair.new())
    name = _new_name()
    own_overlay = overlay or rack.work / f"{name}.qcow2"
    seed = rack.work / f"{name}.seed"
    seed.write_bytes(seed_tar(client, host, hostname=f"{machine.image.arch.name}-{machine.image.recipe}"))
    image = machine.image
    proc.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", image.disk, "-F", image.disk_format, own_overlay])
    deadline = Deadline.after(BOOT_S * rack.scale)
    with _console(rack, machine, name, console_log, watch, warm=False) as guest, ExitStack() as stack:
        stack.callback(_unlink, seed, *(() if overlay else (own_overlay,)))
        stack.callback(rack.hypervisor.destroy, name)
        guest.port = port = _start(rack, machine, name, own_overlay, seed, rack.hypervisor.boot)
        with _explained(rack, name):
            guest.console.wait_for(READY, deadline)
            guest.attach(Connection.open(port, key=client, host_key=host.public, deadline=deadline))
        stack.callback(_close, guest)
        guest.text = kernelmap.learn(guest, image, deadline=deadline)
        yield guest


@contextmanager
def restore(
    rack: Rack,
    machine: Machine,
    *,
    saved: Path,
    seed: Path,
    keys: Keys,
    text: int | None,
    console_log: Path,
    watch: Callable[[bytes], str | None] = lambda _data: None,
) -> Iterator[Guest]:
    """Bring a guest back from its own copy of a saved overlay, and end it on the way out.

    `text` is where its kernel lay when it was saved. The guest's clock, random pool, keys and edu devices are this
    run's when it is handed over.
    """
    name = _new_name()
    overlay = rack.work / f"{name}.qcow2"
    deadline = Deadline.after(RESTORE_S * rack.scale)
    with _console(rack, machine, name, console_log, watch, warm=True) as guest, ExitStack() as stack:
        stack.callback(_unlink, overlay)
        copy_sparse(saved, overlay)
        stack.callback(rack.hypervisor.destroy, name)
        guest.port = port = _start(rack, machine, name, overlay, seed, rack.hypervisor.restore_warm)
        with _explained(rack, name):
            guest.attach(Connection.open(port, key=keys.client, host_key=keys.host, deadline=deadline))
        stack.callback(_close, guest)
        refresh = (
            # A program costs an emulated guest a tenth of a second, but for the shell's own and the statically linked.
            f"{EDU_BACK} & read -r pool; echo $pool >/dev/urandom; busybox date -u -s @{int(time.time())} >/dev/null; "
            f"echo '{rack.key.public}' > {AUTHORIZED_KEYS} && wait"
        )
        guest.run(refresh, stdin=f"{secrets.token_hex(64)}\n".encode(), deadline=deadline)
        guest.text = text
        kernelmap.keep(guest, machine.image, deadline=deadline)
        yield guest


@contextmanager
def _console(
    rack: Rack,
    machine: Machine,
    name: str,
    console_log: Path,
    watch: Callable[[bytes], str | None],
    *,
    warm: bool,
) -> Iterator[Guest]:
    """A guest that has a console and nothing else yet."""
    guests: list[Guest] = []

    def see(data: bytes) -> None:
        if (reason := watch(data)) and guests:
            guests[0].give_up(reason)

    def ended() -> None:
        if guests:
            guests[0].give_up(ENDED)

    console = Console(rack.root / f"{name}.con", console_log, watch=see, ended=ended)
    try:
        guests.append(Guest(name, machine, rack, console, warm=warm))
        rack.enter(name, guests[0].give_up)
        yield guests[0]
    finally:
        rack.leave(name)
        console.close()


def _start(rack: Rack, machine: Machine, name: str, overlay: Path, seed: Path, start: Callable[[str], None]) -> int:
    """Start the domain and return its SSH port; a port that somebody took meanwhile is replaced."""
    image = machine.image
    ssh.prepare()
    for left in reversed(range(PORT_TRIES)):
        port = rack.take_port()
        spec = domain.DomainSpec(
            name=name,
            uuid=str(uuid.uuid4()),
            arch=image.arch,
            hardware=machine.hardware,
            kvm=machine.accel is Accel.KVM,
            emulator=Path("/usr/bin") / image.arch.qemu,
            kernel=image.kernel,
            initrd=image.initrd,
            cmdline=image.cmdline,
            overlay=overlay,
            seed=seed,
            console=rack.root / f"{name}.con",
            gdb=rack.root / f"{name}.gdb",
            ssh_port=port,
            owner=rack.hypervisor.owner,
        )
        try:
            start(domain.render(spec))
            halt.check()  # whoever ends all guests may have looked for this one before it began
            return port
        except HypervisorError as e:
            rack.hypervisor.destroy(name)
            if "forwarding" not in e.message or not left:
                raise
            log.info("port %d was taken meanwhile, trying another", port)
    raise AssertionError("unreachable")


@contextmanager
def _explained(rack: Rack, name: str) -> Iterator[None]:
    """A guest that does not answer because its disk's host cannot write is the host's failure, no hang."""
    try:
        yield
    except (DeadlineError, GuestLost) as e:
        if reason := rack.hypervisor.disk_error(name):
            raise HostError(reason, hint="free some space, or run: lab gc") from e
        raise


def _close(guest: Guest) -> None:
    if guest.connection is not None:
        guest.connection.close()


def _unlink(*files: Path) -> None:
    for file in files:
        file.unlink(missing_ok=True)


def _new_name() -> str:
    return f"g{secrets.token_hex(3)}"
