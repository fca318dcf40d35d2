# SPDX-License-Identifier: GPL-2.0-or-later
"""The one place that talks to libvirt: its connection, event loop, domains and saved memory.

By default the QEMU driver runs inside this process (`qemu:///embed`) on a root of its own, so
nothing needs a daemon, two labs never meet, and a guest's files are found by its root alone.
"""

from __future__ import annotations

import ctypes
import logging
import os
import tempfile
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lab import paths, proc
from lab.errors import HypervisorError, refused

# libvirt reads this when it is imported; its warnings would go to stderr, between our lines.
os.environ.setdefault("LIBVIRT_LOG_OUTPUTS", f"3:file:{paths.state_dir() / 'libvirt.log'}")

import libvirt  # noqa: E402

log = logging.getLogger(__name__)

EMBED = "qemu:///embed"
SNAPSHOT = "warm"
_PR_SET_CHILD_SUBREAPER = 36
_QEMU_CONF = 'stdio_handler = "file"\nseccomp_sandbox = 1\n'
# namespaces: the private /dev that libvirt makes for QEMU as root fails in a chroot and in containers.
_QEMU_CONF_ROOT = (
    'user = "+0"\ngroup = "+0"\ndynamic_ownership = 0\nsecurity_driver = "none"\n'
    "namespaces = []\ncgroup_controllers = []\n"
)
_loop_lock = threading.Lock()
_loop_running = False
_reaping = False


class Hypervisor:
    """An open connection; a context manager. All methods may be called from several threads."""

    def __init__(self, connection: Any, *, embed_root: Path | None = None, owner: str = "") -> None:
        self._connection = connection
        self._embed_root = embed_root
        self.owner = owner  # +UID:+GID for QEMU, see DomainSpec

    @classmethod
    @contextmanager
    def open(cls, uri: str, *, root: Path) -> Iterator[Hypervisor]:
        """Connect to `uri`; an embedded driver keeps everything below `root`.

        Raises HypervisorError with a hint when libvirt is absent or refuses.
        """
        start_event_loop()
        embed_root = None
        if uri == EMBED:
            embed_root = root
            _prepare_embed(root)
            uri = f"{EMBED}?root={root}"
            start_reaping()
        try:
            with _on_one_cpu() if embed_root else nullcontext():
                connection = libvirt.open(uri)
        except libvirt.libvirtError as e:
            raise HypervisorError(f"libvirt does not open {uri}: {e}", hint="run: lab doctor") from e
        try:
            opened = cls(connection, embed_root=embed_root, owner=owner(uri))
            if not embed_root and not urlsplit(uri).netloc:
                opened.forget_dead()
            yield opened
        finally:
            with suppress(libvirt.libvirtError):
                connection.close()

    def version(self) -> tuple[str, str]:
        """(libvirt, QEMU) versions in dotted form."""
        with _wrapped("find QEMU"):
            return _dotted(self._connection.getLibVersion()), _dotted(self._connection.getVersion())

    def boot(self, xml: str) -> None:
        """Start a domain that vanishes when it ends."""
        with _wrapped("start the guest"):
            self._connection.createXML(xml, 0)

    def save_warm(self, name: str) -> None:
        """Save memory and disk of a running domain into its overlay as an internal snapshot."""
        with _wrapped("save the guest's memory"):
            self._connection.lookupByName(name).snapshotCreateXML(
                f"<domainsnapshot><name>{SNAPSHOT}</name></domainsnapshot>", 0
            )

    def restore_warm(self, xml: str) -> None:
        """Start a domain from the memory that its own copy of a saved overlay holds.

        libvirt knows nothing of the snapshot in a copied file: it is declared again with the
        copy's own definition (the UUID must match) and then reverted to.
        """
        with _wrapped("restore the guest"):
            domain = self._connection.defineXML(xml)
            definition = ET.fromstring(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_SECURE))  # noqa: S314 - libvirt's own
            snapshot = ET.Element("domainsnapshot")
            for tag, text in (("name", SNAPSHOT), ("state", "running"), ("creationTime", "0")):
                ET.SubElement(snapshot, tag).text = text
            ET.SubElement(snapshot, "memory", snapshot="internal")
            disks = ET.SubElement(snapshot, "disks")
            ET.SubElement(disks, "disk", name="vda", snapshot="internal")
            ET.SubElement(disks, "disk", name="vdb", snapshot="no")
            snapshot.append(definition)
            saved = domain.snapshotCreateXML(
                ET.tostring(snapshot, encoding="unicode"), libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_REDEFINE
            )
            domain.revertToSnapshot(saved, libvirt.VIR_DOMAIN_SNAPSHOT_REVERT_RUNNING)

    def dump(self, name: str, path: Path, *, wanted: Callable[[], bool] = lambda: True) -> None:
        """Write a domain's memory and registers into an ELF core, which appears whole or not at all.

        Nor does it appear when it is not `wanted` any more once it is written.
        The domain stands still meanwhile, and afterwards runs if it ran before. The file is the caller's alone: memory
        holds keys. The core has a VMCOREINFO note when the guest's kernel gave one (`kernelmap.learn`).
        """
        try:
            handle, name_of_part = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
            os.close(handle)
        except OSError as e:
            raise refused(e, where=path) from e
        partial = Path(name_of_part)
        try:
            with _wrapped("dump the guest's memory"):
                self._connection.lookupByName(name).coreDumpWithFormat(
                    str(partial), libvirt.VIR_DOMAIN_CORE_DUMP_FORMAT_RAW, libvirt.VIR_DUMP_MEMORY_ONLY
                )
            if wanted():
                partial.replace(path)
        except OSError as e:
            raise refused(e, where=path) from e
        finally:
            partial.unlink(missing_ok=True)

    def xml(self, name: str) -> str:
        """The live XML of a domain."""
        with _wrapped("read the guest's XML"):
            return str(self._connection.lookupByName(name).XMLDesc(0))

    def running(self, name: str) -> bool:
        """Whether a domain of this name runs (paused counts)."""
        try:
            return bool(self._connection.lookupByName(name).isActive())
        except libvirt.libvirtError:
            return False

    def stands(self, name: str) -> bool:
        """Whether a domain's CPUs stand still, whoever stopped them: we, a gdb, or a dump that is being written."""
        with _wrapped("ask how the guest is"):
            return _paused(self._connection.lookupByName(name))

    def suspend(self, name: str) -> None:
        """Stop a domain's CPUs where they are; nothing happens when they stand already."""
        with _wrapped("freeze the guest"):
            domain = self._connection.lookupByName(name)
            if not _paused(domain):
                domain.suspend()

    def disk_error(self, name: str) -> str:
        """Why QEMU paused a domain over its disk, in one line; nothing when it did not."""
        try:
            domain = self._connection.lookupByName(name)
            if domain.state()[:2] != [libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR]:
                return ""
            full = libvirt.VIR_DOMAIN_DISK_ERROR_NO_SPACE in domain.diskErrors().values()
        except libvirt.libvirtError:
            return ""
        what = "the host's disk is full" if full else "the host could not read or write the guest's disk"
        return f"{what}: QEMU paused the guest"

    def destroy(self, name: str) -> None:
        """End a domain and forget it; nothing happens when it is gone already."""
        try:
            domain = self._connection.lookupByName(name)
            persistent = bool(domain.isPersistent())
        except libvirt.libvirtError:
            return
        with suppress(libvirt.libvirtError):
            domain.destroy()
        if persistent:
            with suppress(libvirt.libvirtError):
                domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA)

    def forget_dead(self) -> list[str]:
        """Undefine the domains that killed labs left in a daemon, which keeps them; their names."""
        gone = []
        with _wrapped("list its guests"):
            there = self._connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_INACTIVE)
        for domain in there:
            with suppress(libvirt.libvirtError):  # somebody else's, who removes it just now
                disk = ET.fromstring(domain.XMLDesc()).find("devices/disk/source")  # noqa: S314 - libvirt's own
                file = Path(disk.get("file", "") if disk is not None else "")
                if file.parent.parent == paths.cache_dir() / "racks" and not file.parent.exists():
                    domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA)
                    gone.append(domain.name())
        return gone

    def qemu_pid(self, name: str) -> int | None:
        """The process id of an embedded driver's guest, None when it has none."""
        if self._embed_root is None:
            return None
        try:
            return int((self._embed_root / "run" / "qemu" / f"{name}.pid").read_text())
        except (OSError, ValueError):
            return None


def owner(uri: str) -> str:
    """+UID:+GID as whom QEMU is to run; nothing where it does already.

    The system's daemon has it run as a user of its own, who reaches neither our images nor our sockets.
    """
    return f"+{os.getuid()}:+{os.getgid()}" if urlsplit(uri).path == "/system" else ""


def start_reaping() -> None:
    """Become the parent of the QEMUs that libvirt daemonizes, and reap each as soon as it ends.

    An ended QEMU stays a zombie until its parent reaps it, and libvirt polls for it to vanish:
    destroy takes 0.2 s so instead of 1.2-2.0 s, and the first probing of QEMU needs it too.
    """
    global _reaping
    with _loop_lock:
        if _reaping:
            return
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        threading.Thread(target=_reap_qemus, name="reap-qemu", daemon=True).start()
        _reaping = True


def _reap_qemus() -> None:
    """Reap ended daemons called QEMU, and nothing else: other children belong to who started them.

    The QEMUs whose end libvirt itself waits for, when it probes them, are in our session; one that
    `proc` waits for is theirs, too; those that were handed to us because they became daemons are neither.
    """
    session = os.getsid(0)
    while True:
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
        except ChildProcessError:
            time.sleep(0.05)  # no child at all: nothing to block on
            continue
        ours = 0
        for pid in _children():
            with suppress(OSError):
                name, _, rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
                if "(qemu-system" in name and int(rest.split()[3]) != session and not proc.waits_for(pid):
                    ours += os.waitpid(pid, os.WNOHANG)[0] != 0
        if not ours:
            time.sleep(0.01)  # somebody else's child, who will reap it


def _children() -> list[int]:
    pids: list[int] = []
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):
            pids += map(int, (task / "children").read_text().split())
    return pids


def start_event_loop() -> None:
    """Run libvirt's default event loop in a thread, once per process and before the first open."""
    global _loop_running
    with _loop_lock:
        if _loop_running:
            return
        # Errors are raised as exceptions; libvirt would print each one to stderr as well.
        libvirt.registerErrorHandler(lambda _context, error: log.debug("libvirt: %s", error[2]), None)
        libvirt.virEventRegisterDefaultImpl()

        def turn() -> None:
            while True:
                if libvirt.virEventRunDefaultImpl() < 0:
                    log.warning("libvirt's event loop failed once")

        threading.Thread(target=turn, name="libvirt-events", daemon=True).start()
        _loop_running = True


@contextmanager
def _on_one_cpu() -> Iterator[None]:
    """Run here on the same CPU as every lab does, and leave no thread of ours there.

    libvirt looks at the host's CPUID when its driver begins, and probes each QEMU anew, for two seconds, when it is not
    what it was. libvirt 9.0 takes all of leaf 0x1f for the host's, where the number of the CPU is that it runs on.
    """
    allowed, before = os.sched_getaffinity(0), set(os.listdir("/proc/self/task"))
    with suppress(OSError):
        os.sched_setaffinity(0, {min(allowed)})
    try:
        yield
    finally:
        with suppress(OSError):
            os.sched_setaffinity(0, allowed)
            for task in set(os.listdir("/proc/self/task")) - before:
                with suppress(OSError):  # it has ended
                    os.sched_setaffinity(int(task), allowed)


def _prepare_embed(root: Path) -> None:
    """The folders and qemu.conf that an embedded driver reads; QEMU's capabilities are probed once for all roots."""
    (root / "etc").mkdir(parents=True, exist_ok=True)
    conf = _QEMU_CONF + (_QEMU_CONF_ROOT if os.geteuid() == 0 else "")
    paths.write_whole(root / "etc" / "qemu.conf", conf)
    shared = paths.cache_dir() / "libvirt"
    shared.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        (root / "cache").symlink_to(shared)


def _paused(domain: Any) -> bool:
    return bool(domain.state()[0] == libvirt.VIR_DOMAIN_PAUSED)


@contextmanager
def _wrapped(what: str) -> Iterator[None]:
    try:
        yield
    except libvirt.libvirtError as e:
        raise HypervisorError(f"libvirt could not {what}: {e}".replace("\n", " ")[:400]) from e


def _dotted(number: int) -> str:
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"
