# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel's symbols: taken from a guest that may lie, kept beside the image, written as ELF for debuggers."""

from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from lab import image, kernelmap
from lab.arch import ARCHES
from lab.deadline import Deadline
from lab.errors import HypervisorError, LabError
from lab.ssh import Done

KALLSYMS = """\
0000000000000000 A fixed_percpu_data
ffffffff9f000000 T _text
ffffffff9f000000 T _stext
ffffffff9f000000 T startup_64
ffffffff9f000040 t __pfx_one
ffffffff9f000050 t one
ffffffff9f200000 T _etext
ffffffff9f300000 d modules
ffffffff9f400000 D __init_begin
ffffffff9f400010 t setup_arch
ffffffff9f500000 D __init_end
ffffffff9f600000 B last
ffffffff9f700000 B _end
ffffffffc0000000 t virtblk_probe\t[virtio_blk]
"""


class Guest:
    """Answers as it was told to; every command it was asked is kept."""

    def __init__(self, kallsyms: str, status: int = 0) -> None:
        self.kallsyms, self.status = kallsyms, status
        self.asked: list[str] = []

    def run(self, command: str, *, deadline: Deadline, check: bool = True) -> Done:
        self.asked.append(command)
        if check and self.status:
            raise HypervisorError("it did not work")
        lines = self.kallsyms.splitlines()
        found = lines if "cat " in command else [line for line in lines if line.endswith(" _stext")][:1]
        return Done(self.status, "\n".join([*found, ""]).encode(), b"")


@pytest.fixture
def base(tmp_path: Path) -> image.Image:
    return image.Image(
        recipe="bookworm", arch=ARCHES["x86_64"], digest="0", folder=tmp_path, disk=tmp_path / "d",
        disk_format="qcow2", kernel=tmp_path / "k", initrd=tmp_path / "i", cmdline="", release="6.1", compiler="gcc",
        manifest=tmp_path / "m",
    )  # fmt: skip


def test_the_first_guest_is_asked_for_all_and_the_next_one_only_where_it_lies(base: image.Image) -> None:
    first, second = Guest(KALLSYMS), Guest(KALLSYMS.replace("ffffffff9f", "ffffffff8a"))
    assert kernelmap.learn(first, base, deadline=Deadline.after(1)) == 0xFFFFFFFF9F000000
    assert kernelmap.learn(second, base, deadline=Deadline.after(1)) == 0xFFFFFFFF8A000000
    assert len(first.asked) == 2 and len(second.asked) == 1
    known = kernelmap.read(base.folder)
    assert known["modules"].address == 0xFFFFFFFF9F300000
    assert "virtblk_probe" not in known and "__pfx_one" not in known


@pytest.mark.parametrize("said", ["", "nonsense\n" * 10, "0000000000000000 T _stext\n", "ffff T _stext\n\x1b[2J"])
def test_a_guest_that_tells_nothing_useful_leaves_nothing(base: image.Image, said: str) -> None:
    assert not kernelmap.learn(Guest(said), base, deadline=Deadline.after(1))
    assert not list(base.folder.iterdir())
    with pytest.raises(LabError) as caught:
        kernelmap.read(base.folder)
    assert caught.value.hint


def test_a_guest_that_cannot_is_no_error(base: image.Image) -> None:
    assert kernelmap.learn(Guest("", status=1), base, deadline=Deadline.after(1)) is None


def test_the_symbol_file_is_elf_with_what_is_still_there(base: image.Image) -> None:
    kernelmap.keep(Guest(KALLSYMS), base, deadline=Deadline.after(1))
    file = kernelmap.symbol_file(base.folder, 62)
    with file.open("rb") as stream:
        read = ELFFile(stream)
        assert read["e_machine"] == "EM_X86_64"
        symbols = {one.name: one for one in read.get_section_by_name(".symtab").iter_symbols()}
        text = read.get_section_by_name(".text")
        assert (text["sh_addr"], text["sh_size"]) == (0xFFFFFFFF9F000000, 0x200000)
    assert symbols["one"]["st_value"] == 0xFFFFFFFF9F000050 and symbols["one"]["st_info"]["type"] == "STT_FUNC"
    assert symbols["modules"]["st_info"]["type"] == "STT_OBJECT"
    assert symbols["fixed_percpu_data"]["st_shndx"] == "SHN_ABS"
    assert "setup_arch" not in symbols, "its memory is somebody else's since the kernel booted"
    before = file.stat().st_mtime_ns
    assert kernelmap.symbol_file(base.folder, 62) == file and file.stat().st_mtime_ns == before


def test_where_a_kernel_file_with_debug_information_begins(base: image.Image) -> None:
    kernelmap.keep(Guest(KALLSYMS), base, deadline=Deadline.after(1))
    file = kernelmap.symbol_file(base.folder, 62)
    assert kernelmap.linked_at(file) == 0xFFFFFFFF9F000000
    whole = file.read_bytes()
    for damaged in (b"", whole[:70], whole[:-50], whole.replace(b".text\0", b".tixt\0")):
        file.write_bytes(damaged)
        with pytest.raises(LabError):
            kernelmap.linked_at(file)


def test_a_damaged_map_is_told(base: image.Image) -> None:
    (base.folder / kernelmap.MAP).write_text("ffffffff9f300000 d modules\n")
    with pytest.raises(LabError, match="damaged"):
        kernelmap.read(base.folder)
