# SPDX-License-Identifier: GPL-2.0-or-later
"""gdb on real guests, frozen at a splat and running, and what a dump of one holds."""

import os
import re
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from lab import kernelmap, paths, stayed
from lab.debugger import GDB
from lab.guest import Guest, Machine
from lab.workshop import RunOptions
from tests.vm.bench import Bench
from tests.vm.conftest import Start, Workshops

STEP_S = 120.0
MUTANT = paths.kmod_dir() / "mutants/splat.c"


@dataclass
class Lab:
    """A guest with modules, recorded as one that stays; frozen when it says what it is to be frozen at."""

    guest: Guest
    bench: Bench
    record: stayed.Record
    folder: Path
    said: threading.Event = field(default_factory=threading.Event)

    def gdb(self, script: str, *, python: bool = False) -> tuple[int, str]:
        """`lab gdb --script`: its exit code and all that it prints."""
        file = self.folder / ("look.py" if python else "look.gdb")
        file.write_text(script)
        words = [sys.executable, "-m", "lab", "gdb", self.guest.name, "--script", str(file)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=STEP_S * self.guest.rack.scale)
        print(done.stdout, done.stderr)
        return done.returncode, done.stdout + done.stderr

    def freeze(self) -> None:
        """Wait for the guest to have been frozen, and write that down."""
        assert self.said.wait(STEP_S * self.guest.rack.scale), "the guest did not complain"
        self.record = replace(self.record, frozen="told by the test")
        stayed.write(self.record)

    def tell(self, console: str) -> None:
        """Have the console have said no more than that."""
        file = self.folder / "told.log"
        file.write_text(console)
        stayed.write(replace(self.record, console_log=str(file)))

    def stands(self) -> bool:
        """Whether the guest's CPUs stand still, by libvirt's word."""
        return bool(self.guest.rack.hypervisor._connection.lookupByName(self.guest.name).state()[0] == 3)


Labs = Callable[..., AbstractContextManager[Lab]]


@pytest.fixture
def labs(
    start: Start, machine: Machine, workshops: Workshops, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Labs]:
    """Guests with modules of a mutant's build."""
    monkeypatch.setenv("LAB_STATE_DIR", str(tmp_path / "state"))

    @contextmanager
    def made(mutant: str = "", *, at: bytes = b"") -> Iterator[Lab]:
        workshop = workshops(replace(RunOptions(), build="host", mutant=mutant))
        build = workshop.build(machine)
        guests: list[Guest] = []
        said, tail = threading.Event(), bytearray()

        def watch(data: bytes) -> None:
            tail.extend(data)
            if guests and at and at in tail and not said.is_set():
                guests[0].rack.hypervisor.suspend(guests[0].name)
                said.set()

        with start(watch=watch) as guest:
            guests.append(guest)
            bench = Bench(guest, "refcount")
            bench.place(workshop.payload(build))
            if at:
                guest.stop_at_splats()
            image = machine.image
            record = stayed.Record(
                name=guest.name, arch=image.arch.name, kernel=image.recipe, hardware="standard", release=image.release,
                accel=machine.accel.value, warm=guest.warm, keeper=os.getpid(), control=str(tmp_path / "control"),
                gdb=str(guest.gdb), ssh_port=0, ssh_key="", known_hosts="", console_log=str(tmp_path / "console.log"),
                started="", image=str(image.folder), text=guest.text, build=str(build.folder),
            )  # fmt: skip
            stayed.write(record)
            yield Lab(guest, bench, record, tmp_path, said)

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as keeper:
        keeper.bind(str(tmp_path / "control"))
        keeper.listen(64)  # it lives, and answers nobody
        yield made


def frames(said: str) -> list[str]:
    """A backtrace's frames, each on one line."""
    return [" ".join(one.split()) for one in re.split(r"(?m)^#\d+ ", said)[1:]]


def test_a_frozen_mutant_shows_the_line_that_warned(labs: Labs, arch: str) -> None:
    line = next(i for i, text in enumerate(MUTANT.read_text().splitlines(), 1) if "WARN_ONCE(" in text)
    with labs("splat", at=b"---[ end Kernel panic") as lab:
        lab.bench.sh("./hs-ctl up --mechanism refcount --load syscall --seed 7 --mutant splat")
        lab.bench.sh("(./hs-load --load syscall --threads 2 --seed 7; true) >load.json 2>&1 </dev/null & sleep 0.1")
        lab.bench.sh("./hs-ctl swap --count 4 --seed 7 >swaps 2>&1 </dev/null &")
        lab.freeze()
        status, said = lab.gdb("hs slots\nhs editions\nhs refs\nhs splat\nbt\nframe 1\ninfo locals\n")
        assert status == 0 and lab.stands()
        found = frames(said)
        assert "splat_argument" in found[1] and f"/mutants/splat.c:{line}" in found[1], found[1]
        assert re.search("mix_(call|seal) ", found[2]) and "/mutants/../editions/mix.c:" in found[2], found[2]
        assert re.search(rf"^{line}\s+WARN_ONCE\(", said, re.MULTILINE), "frame 1 shows the source"
        assert any("ioctl" in one for one in found[3:]), found
        assert f"({MUTANT}:{line})" in said, "hs splat names the same"
        assert re.search(r"^calc +refcount +mix +\d+", said, re.MULTILINE)
        assert re.search(r"^calc +mix +hs_mut_splat +\d+ +live +[12] +0x", said, re.MULTILINE)
        # Frozen before the registers were printed, the guest has them on its stack. A script that fails says so.
        console = Path(lab.record.console_log).read_text()
        lab.tell(console[: console.index("Modules linked in:")])
        status, said = lab.gdb("hs splat\nbt 3\np nothing_of_that_name\n")
        assert "the exception's frame on the stack" in said and f"/mutants/splat.c:{line}" in frames(said)[1], said
        assert status == 1 and "nothing_of_that_name" in said and lab.stands()


def test_an_oops_in_freed_text_is_told_by_where_the_edition_was(labs: Labs, arch: str) -> None:
    # A caller on its way out of the reference manager may be the first to meet what is gone: then once more.
    assert any(_died_in_an_edition(labs) for _ in range(4))


def _died_in_an_edition(labs: Labs) -> bool:
    with labs("early_unload", at=b"---[ end Kernel panic") as lab:
        lab.bench.sh("./hs-ctl up --mechanism refcount --load syscall --seed 7 --mutant early_unload")
        lab.bench.sh("(./hs-load --load syscall --threads 2 --seed 7; true) >load.json 2>&1 </dev/null & sleep 0.1")
        lab.bench.sh("./hs-ctl swap --count 2 --seed 7 >swaps 2>&1 </dev/null &")
        lab.freeze()
        status, said = lab.gdb("hs editions\nhs splat\nbt 12\n")
        assert status == 0 and lab.stands()
        assert "unloaded, shown where they were" in said
        assert re.search(r"^calc +\w+ +hs_ed_\w+ +\d+ +gone +0 +0x", said, re.MULTILINE)
        return any("/editions/" in one for one in frames(said)[1:3])


def test_a_running_guest_is_read_dumped_and_runs_on(labs: Labs, arch: str, machine: Machine, tmp_path: Path) -> None:
    with labs() as lab:
        lab.bench.mechanism = "invalidate"
        lab.bench.begin("spin", 2_000_000)
        status, said = lab.gdb("hs slots\nhs editions\nhs refs\nhs records\n")
        assert status == 0
        live = re.search(r"^calc +(\w+) +hs_ed_\1 +(\d+) +live +(\d+) +0x", said, re.MULTILINE)
        assert live and int(live[3]) >= 1, "two callers stay in it"
        assert re.search(rf"^hs-load +\d+ +\d +{live[1]} +{live[2]} +0x", said, re.MULTILINE), "and have records"
        assert f"{live[1]} " in said and re.search(rf"^{live[1]} +{live[2]} +all +", said, re.MULTILINE)
        assert not lab.stands()
        status, _ = lab.gdb(f"import os, signal\nassert '{GDB}'\nos.kill(os.getpid(), signal.SIGKILL)\n", python=True)
        assert status == 3
        assert lab.bench.sh("echo alive").strip() == "alive", "gdb was killed, and the guest goes on"
        core = tmp_path / "guest.core"
        lab.guest.rack.hypervisor.dump(lab.guest.name, core)
        assert lab.bench.sh("echo alive").strip() == "alive"
        assert lab.guest.text is not None
        check_core(core, machine, lab.record, lab.guest.text)
        lab.bench.end()


def check_core(core: Path, machine: Machine, record: stayed.Record, text: int) -> None:
    """A core holds the kernel's own note, and in its memory the module table lies where the modules' files say.

    Addresses are the kernel's, so each is looked up in the page table that the note names.
    """
    with core.open("rb") as stream:
        elf = ELFFile(stream)
        assert elf["e_type"] == "ET_CORE"
        memory = Memory(elf, machine.image.arch.name)
        assert memory.note["OSRELEASE"] == machine.image.release
        assert int(memory.note["SYMBOL(_stext)"], 16) >= text
        assert sum(one[1] for one in memory.segments) >= machine.hardware.memory_mib << 20
        build = Path(str(record.build))
        head = (
            kernelmap.read(machine.image.folder)["modules"].address
            - kernelmap.read(machine.image.folder)[kernelmap.TEXT].address
        )
        places = sections(memory, build, head + text, b"hs_core")
        assert places
        with (build / "hs_core.ko").open("rb") as file:
            ours = ELFFile(file)
            symbol = next(one for one in ours.get_section_by_name(".symtab").iter_symbols() if one.name == "slots")
            slots = places[ours.get_section(symbol["st_shndx"]).name] + symbol["st_value"]
        link, name = offsets(build, "hs_slot.node", "hs_slot.name")
        first = memory.word(slots)
        assert memory.read(first - link + name, 5) == b"calc\0"


@dataclass
class Memory:
    """A core's memory by the kernel's addresses."""

    elf: ELFFile
    arch: str
    segments: list[tuple[int, int, int]] = field(default_factory=list)  # physical address, size, place in the file
    note: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for segment in self.elf.iter_segments():
            if segment["p_type"] == "PT_LOAD":
                self.segments.append((segment["p_paddr"], segment["p_filesz"], segment["p_offset"]))
            elif segment["p_type"] == "PT_NOTE":
                for one in segment.iter_notes():
                    if one["n_name"] == "VMCOREINFO":
                        said = bytes(one["n_descdata"]).decode().splitlines()
                        self.note |= dict(line.split("=", 1) for line in said if "=" in line)
        table = int(self.note["SYMBOL(swapper_pg_dir)"], 16)
        if self.arch == "x86_64":
            self.table, self.bits = table - 0xFFFFFFFF80000000 + int(self.note["NUMBER(phys_base)"]), 48
        else:
            self.table = table - int(self.note["NUMBER(kimage_voffset)"], 16)
            self.bits = 64 - int(self.note["NUMBER(TCR_EL1_T1SZ)"], 16)

    def physical(self, at: int, size: int) -> bytes:
        for start, length, offset in self.segments:
            if start <= at and at + size <= start + length:
                self.elf.stream.seek(offset + at - start)
                return bytes(self.elf.stream.read(size))
        raise AssertionError(f"{at:#x} is not in the core")

    def read(self, at: int, size: int) -> bytes:
        """Tables of 512 entries: what both have with pages of 4 KiB; a small one first, where there are 52 bits."""
        table, at = self.table, at & (1 << self.bits) - 1
        for shift in (*((48,) if self.bits > 48 else ()), 39, 30, 21, 12):
            (entry,) = struct.unpack("<Q", self.physical(table + 8 * (at >> shift & 511), 8))
            assert entry & 1, f"{at:#x} is not mapped"
            table = entry & 0x0000FFFFFFFFF000
            large = entry & 0x80 if self.arch == "x86_64" else not entry & 2
            if shift == 12 or large:
                low = at & ((1 << shift) - 1)
                return self.physical((table >> shift << shift) + low, size)
        raise AssertionError("unreachable")

    def word(self, at: int) -> int:
        return int.from_bytes(self.read(at, 8), "little")


def sections(memory: Memory, build: Path, head: int, wanted: bytes) -> dict[str, int]:
    """Where the sections of a module lie, by the kernel's list of modules."""
    link, name, attributes, files, title, private = offsets(
        build, "module.list", "module.name", "module.sect_attrs",
        "attribute_group.bin_attrs", "bin_attribute.attr.name", "bin_attribute.private",
    )  # fmt: skip
    at = memory.word(head)
    while at != head:
        start = at - link
        if memory.read(start + name, len(wanted) + 1) == wanted + b"\0":
            break
        at = memory.word(at)
    assert at != head, "the module is not in the list"
    group, found, number = memory.word(start + attributes), {}, 0
    (size,) = offsets(build, "bin_attribute")
    while file := memory.word(memory.word(group + files) + 8 * number):
        text = memory.read(memory.word(file + title), 24).split(b"\0")[0].decode()
        found[text] = memory.word(file + private) or memory.word(file + size)
        number += 1
    return found


def offsets(build: Path, *members: str) -> list[int]:
    """Offsets of members (`structure.member`), sizes of structures, by the DWARF of our own module."""
    asked = []
    for member in members:
        kind, _, rest = member.partition(".")
        asked += ["-ex", f"p (long)&((struct {kind} *)0)->{rest}" if rest else f"p (long)sizeof(struct {kind})"]
    done = subprocess.run([GDB, "-nx", "-batch", *asked, str(build / "hs_core.ko")], capture_output=True, text=True)
    return [int(line.split("=")[1]) for line in done.stdout.splitlines() if line.startswith("$")]
