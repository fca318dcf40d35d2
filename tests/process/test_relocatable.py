# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading a module's file inside gdb, held against what binutils say of the same file."""

import re
import subprocess
from pathlib import Path

import pytest

from lab.arch import ARCHES
from lab.gdb.relocatable import Relocatable

SOURCE = r"""
extern int other(const char *text, int *where);
static __attribute__((noinline, section(".text.cold"))) int seldom(int a) { int b[40]; return other("x", b) + b[a]; }
int often(int a, int b, int c)
{
	int where[8], sum = 0;

	for (int i = 0; i < a; i++) {
		if (other("y", where) == b)
			return seldom(c) + sum;
		sum += where[i & 7] * other("z", &c);
	}
	return sum + c;
}
int leaf(int a) { return a + 1; }
"""
FLAGS = {"x86_64": [], "aarch64": ["-mbranch-protection=pac-ret", "-fno-omit-frame-pointer"]}


@pytest.fixture(scope="module", params=ARCHES)
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """(cross prefix, object file) of each architecture, compiled as the kernel does."""
    folder, arch = tmp_path_factory.mktemp("relocatable"), ARCHES[str(request.param)]
    (folder / "a.c").write_text(SOURCE)
    flags = ["-O2", "-g", "-fno-asynchronous-unwind-tables", "-fno-unwind-tables", *FLAGS[arch.name]]
    subprocess.run([f"{arch.cross}gcc", *flags, "-c", "a.c", "-o", "a.o"], cwd=folder, check=True)
    return arch.cross, folder / "a.o"


def said(cross: str, *words: str | Path) -> str:
    return subprocess.run([f"{cross}readelf", *words], check=True, capture_output=True, text=True).stdout


def test_sections_and_symbols(built: tuple[str, Path]) -> None:
    cross, path = built
    file = Relocatable(path)
    symbols = {one.name: one for one in file.symbols()}
    for name in ("often", "leaf", "seldom"):
        row = next(line.split() for line in said(cross, "-sW", path).splitlines() if line.endswith(f" {name}"))
        one = symbols[name]
        assert (one.offset, one.size, str(one.section)) == (int(row[1], 16), int(row[2]), row[6])
    assert {one.name for one in file.sections if one.code and one.size} == {".text", ".text.cold"}
    offsets = file.code_offsets()
    assert offsets[".text"] == 0 and offsets[".text.cold"] >= file.sections[1].size


def test_rules_are_those_that_readelf_prints(built: tuple[str, Path]) -> None:
    cross, path = built
    file = Relocatable(path)
    numbers = {"rbp": 6, "rbx": 3, "ra": 30 if "aarch64" in cross else 16} | {f"x{i}": i for i in range(31)}
    numbers |= {f"r{i}": i for i in range(8, 16)}
    bases = {"rsp": 7, "sp": 31, "rbp": 6, "x29": 29}
    rows, names, functions = 0, [], [one for one in file.symbols() if one.name in ("often", "leaf", "seldom")]
    for line in said(cross, "--debug-dump=frames-interp", path).splitlines():
        if "LOC" in line:
            names = line.split()[2:]
        elif (found := re.match(r"([0-9a-f]{16}) (\w+)\+(\d+)\s+(.*)", line)) and names is not None:
            offset, cells = int(found[1], 16), found[4].split()
            got = [file.rules(file.sections[one.section].name, offset) for one in functions]
            saved = {numbers[name]: int(cell[1:]) for name, cell in zip(names, cells, strict=False) if cell[0] == "c"}
            assert any(
                rule and (rule.base, rule.distance, rule.saved) == (bases[found[2]], int(found[3]), saved)
                for rule in got
            ), line
            rows += 1
    assert rows > 8
    assert file.rules(".text", 1 << 20) is None and file.rules(".nowhere", 0) is None


def test_gdb_gets_a_copy_where_sections_have_addresses(built: tuple[str, Path], tmp_path: Path) -> None:
    cross, path = built
    assert Relocatable(path).for_gdb(tmp_path) == path
    moved = tmp_path / "moved.ko"
    words = [f"{cross}objcopy", "--change-section-address", ".data=0x598", path, moved]
    subprocess.run(words, check=True)
    assert " 0000000000000598 " in said(cross, "-SW", moved)
    (tmp_path / "copy").mkdir()
    copy = Relocatable(moved).for_gdb(tmp_path / "copy")
    assert copy != moved and " 0000000000000598 " not in said(cross, "-SW", copy)
    assert said(cross, "-sW", copy) == said(cross, "-sW", moved)


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"#!/bin/sh\n" * 20, b"\x7fELF\2\1\1".ljust(200, b"\xff")])
def test_what_is_no_module_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.ko").write_bytes(data)
    with pytest.raises(ValueError, match="no module"):
        Relocatable(tmp_path / "x.ko")
