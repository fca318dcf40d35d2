# SPDX-License-Identifier: GPL-2.0-or-later
"""The libvirt side against libvirt's own test driver, and our XML against libvirt's own schema."""

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import libvirt
import pytest
from lxml import etree

from lab import domain, hardware, paths, proc
from lab.arch import ARCHES
from lab.deadline import Deadline
from lab.errors import HostError, HypervisorError
from lab.hypervisor import Hypervisor, owner
from tests.unit.test_domain import spec

SCHEMA = Path("/usr/share/libvirt/schemas/domain.rng")
XML = "<domain type='test'><name>{name}</name><memory unit='MiB'>64</memory><os><type>hvm</type></os></domain>"


@pytest.fixture
def hypervisor(tmp_path: Path) -> Iterator[Hypervisor]:
    with Hypervisor.open("test:///default", root=tmp_path) as opened:
        yield opened


def test_a_booted_domain_runs_until_destroyed(hypervisor: Hypervisor) -> None:
    hypervisor.boot(XML.format(name="g1"))
    assert hypervisor.running("g1")
    assert "<name>g1</name>" in hypervisor.xml("g1")
    hypervisor.destroy("g1")
    assert not hypervisor.running("g1")


def test_destroy_is_idempotent(hypervisor: Hypervisor) -> None:
    hypervisor.destroy("never-was")


def test_what_libvirt_refuses_becomes_one_line(hypervisor: Hypervisor) -> None:
    with pytest.raises(HypervisorError, match="could not start the guest") as caught:
        hypervisor.boot("<domain type='test'>")
    assert "\n" not in caught.value.message


def test_a_uri_that_does_not_open_has_a_hint(tmp_path: Path) -> None:
    with pytest.raises(HypervisorError) as caught, Hypervisor.open("nosuch:///", root=tmp_path):
        pass
    assert caught.value.hint


def test_an_unknown_domain_is_not_running(hypervisor: Hypervisor) -> None:
    assert not hypervisor.running("nobody")
    with pytest.raises(HypervisorError):
        hypervisor.xml("nobody")


def test_a_guest_paused_over_its_disk_is_told_from_others(hypervisor: Hypervisor) -> None:
    hypervisor.boot(XML.format(name="g1"))
    assert hypervisor.disk_error("g1") == ""
    hypervisor._connection.lookupByName("g1").suspend()
    assert hypervisor.disk_error("g1") == ""
    assert hypervisor.disk_error("nobody") == ""


def test_a_guest_stands_still(hypervisor: Hypervisor) -> None:
    hypervisor.boot(XML.format(name="g1"))
    domain = hypervisor._connection.lookupByName("g1")
    hypervisor.suspend("g1")
    assert domain.state()[0] == libvirt.VIR_DOMAIN_PAUSED
    with pytest.raises(HypervisorError, match="could not freeze"):
        hypervisor.suspend("nobody")


def test_a_dump_that_fails_leaves_no_file(hypervisor: Hypervisor, tmp_path: Path) -> None:
    with pytest.raises(HypervisorError, match="could not dump"):
        hypervisor.dump("nobody", tmp_path / "x.core")
    assert not list(tmp_path.iterdir())
    with pytest.raises(HostError):
        hypervisor.dump("nobody", tmp_path / "nowhere" / "x.core")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (libvirt.VIR_DOMAIN_DISK_ERROR_NO_SPACE, "the host's disk is full"),
        (libvirt.VIR_DOMAIN_DISK_ERROR_UNSPEC, "the host could not read or write"),
    ],
)
def test_a_full_disk_is_told_by_its_name(code: int, words: str) -> None:
    paused = [libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR]
    domain = SimpleNamespace(state=lambda: paused, diskErrors=lambda: {"vda": code})
    assert words in Hypervisor(SimpleNamespace(lookupByName=lambda _name: domain)).disk_error("g1")


def test_what_a_killed_lab_left_in_a_daemon_is_forgotten(
    hypervisor: Hypervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAB_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "cache/racks/alive").mkdir(parents=True)
    for name, folder in (("g1", "cache/racks/dead"), ("g2", "cache/racks/alive"), ("g3", "somebody/elses")):
        disk = f"<disk type='file'><source file='{tmp_path / folder}/{name}.qcow2'/><target dev='vda'/></disk>"
        xml = XML.format(name=name).replace("</domain>", f"<devices>{disk}</devices></domain>")
        hypervisor._connection.defineXML(xml)
    assert hypervisor.forget_dead() == ["g1"] and hypervisor.forget_dead() == []


def test_whose_removes_a_domain_just_now_is_nobodys_error() -> None:
    def gone() -> str:
        raise libvirt.libvirtError("Domain not found")

    domain = SimpleNamespace(XMLDesc=gone)
    assert Hypervisor(SimpleNamespace(listAllDomains=lambda _flags: [domain])).forget_dead() == []


def test_the_systems_daemon_runs_qemu_as_us() -> None:
    assert owner("qemu:///system") == owner("qemu+unix:///system?x=y") == f"+{os.getuid()}:+{os.getgid()}"
    assert owner("qemu:///session") == owner("qemu:///embed") == owner("test:///default") == ""


@pytest.mark.parametrize("wanted", [True, False])
def test_a_dump_appears_if_somebody_wants_it_still(tmp_path: Path, wanted: bool) -> None:
    domain = SimpleNamespace(coreDumpWithFormat=lambda path, _format, _flags: Path(path).write_text("core"))
    hypervisor = Hypervisor(SimpleNamespace(lookupByName=lambda _name: domain))
    hypervisor.dump("g1", tmp_path / "x.core", wanted=lambda: wanted)
    assert [path.name for path in tmp_path.iterdir()] == (["x.core"] if wanted else [])


@pytest.mark.parametrize("kvm", [False, True])
@pytest.mark.parametrize(
    ("arch", "profile"),
    [(arch, profile) for arch in ARCHES for profile, row in hardware.HARDWARE.items() if arch in row.arches],
)
def test_our_xml_is_valid_by_libvirts_schema(arch: str, profile: str, kvm: bool) -> None:
    schema = etree.RelaxNG(etree.parse(SCHEMA))
    schema.assertValid(etree.fromstring(domain.render(spec(arch, profile, kvm=kvm))))
    mine = etree.fromstring(domain.render(replace(spec(arch, profile, kvm=kvm), owner="+1000:+1000")))
    schema.assertValid(mine)
    assert mine.findtext("seclabel/label") == "+1000:+1000"


def test_qemu_is_probed_once_whichever_cpu_we_run_on(tmp_path: Path) -> None:
    code = (
        "import os; from pathlib import Path; from lab.hypervisor import EMBED, Hypervisor\n"
        f"with Hypervisor.open(EMBED, root=Path({str(tmp_path)!r})) as one: print(one.version())\n"
        "print({len(os.sched_getaffinity(int(task))) for task in os.listdir('/proc/self/task')})"
    )
    probed = set()
    for _ in range(6):
        done = proc.run(
            [sys.executable, "-c", code], cwd=paths.REPOSITORY, env={"LAB_CACHE_DIR": str(tmp_path / "kept")}
        )
        assert done.stdout.splitlines()[-1] == f"{{{proc.cores()}}}", "no thread stays on one CPU"
        probed.add(tuple(sorted((one.name, one.stat().st_mtime_ns) for one in (tmp_path / "kept").rglob("*.xml"))))
    assert len(probed) == 1 and probed != {()}


def test_a_qemu_that_we_wait_for_keeps_its_status(tmp_path: Path) -> None:
    fake = tmp_path / "qemu-system-fake"
    fake.write_text("#!/bin/sh\nexit 7\n")
    fake.chmod(0o755)
    code = (
        "import sys; from lab import hypervisor, proc; hypervisor.start_reaping(); "
        "print({proc.run([sys.argv[1]], check=False).returncode for _ in range(40)})"
    )
    done = proc.run([sys.executable, "-c", code, fake], cwd=paths.REPOSITORY, deadline=Deadline.after(60))
    assert done.stdout.splitlines()[-1] == "{7}"
