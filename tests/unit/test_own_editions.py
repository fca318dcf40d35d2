# SPDX-License-Identifier: GPL-2.0-or-later
"""Editions kept out of the tree: what a folder of them may hold, and how they get into what is built."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab import kmodtree, paths
from lab.errors import UsageError
from lab.workshop import RunOptions, Workshop

EXAMPLE = paths.REPOSITORY / "examples/edition"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "fast.c").write_text("#include <hs_edition.h>\n")
    return folder


def test_they_are_modules_of_their_own_beside_the_shipped_ones(tmp_path: Path) -> None:
    target = tmp_path / "staged"
    kmodtree.with_own(paths.kmod_dir(), EXAMPLE, target)
    kbuild = (target / "own/Kbuild").read_text()
    assert "obj-m += hs_own_weyl.o\nhs_own_weyl-y := own/weyl.o\n" in kbuild and "hs_own_crc4.o" in kbuild
    assert (target / "own/hs_own.h").read_text() == (EXAMPLE / "hs_own.h").read_text()
    assert (target / "core/core.c").is_file() and "own/Kbuild" in (target / "Kbuild").read_text()


def test_who_checks_results_knows_their_algorithms(tmp_path: Path) -> None:
    """User space's side of the contract: hs_expected() of an identity that only the example's hs_own.h has."""
    target = tmp_path / "staged"
    kmodtree.with_own(paths.kmod_dir(), EXAMPLE, target)
    (target / "t.c").write_text(
        "#include <linux/types.h>\n#include <stdio.h>\n#include <hs_algorithms.h>\n"
        'int main(void) { printf("%d\\n", hs_algorithm(HS_OWN, 5, 2) == own_weyl(5, 2) && own_weyl(5, 2)); }\n'
    )
    subprocess.run(["gcc", "-Iown", "-Iinclude", "t.c", "-o", "t"], cwd=target, check=True)
    assert subprocess.run([target / "t"], check=True, capture_output=True, text=True).stdout == "1\n"


def test_each_run_has_its_own_copy(own: Path, tmp_path: Path) -> None:
    """Several share a rack: what one was asked to build is not what the next builds."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "slow.c").write_text("#include <hs_edition.h>\n")
    rack: Any = SimpleNamespace(work=tmp_path)
    observer: Any = None
    first, second = (Workshop(rack, RunOptions(kmod=str(folder)), observer) for folder in (own, other))
    assert (first._sources() / "own/fast.c").is_file() and (second._sources() / "own/slow.c").is_file()
    assert first._sources() == first._sources() != second._sources()
    assert Workshop(rack, RunOptions(), observer)._sources() == paths.kmod_dir()


@pytest.mark.parametrize("line", ["/cache/.x/tree/own/fast.c:3:1: error: no", "own/fast.c:3:1: error: no"])
def test_a_complaint_names_the_users_file(own: Path, line: str) -> None:
    assert kmodtree.in_own(f"the build failed: {line}", own) == f"the build failed: {own}/fast.c:3:1: error: no"
    assert kmodtree.in_own("core/own.h:3: error", own) == "core/own.h:3: error"


@pytest.mark.parametrize("name", ["Fast", "2fast", "fast-er", "a" * 25])
def test_a_name_that_no_module_may_have(own: Path, name: str) -> None:
    (own / f"{name}.c").touch()
    with pytest.raises(UsageError, match="no name for a module"):
        kmodtree.check_own(own)


def test_a_module_that_is_no_edition(own: Path) -> None:
    (own / "fast.c").write_text("int x;\n")
    with pytest.raises(UsageError, match="fast.c includes neither hs_edition.h nor hotswap.h"):
        kmodtree.check_own(own)


def test_too_many_or_too_much(own: Path) -> None:
    assert kmodtree.check_own(own) == ["fast"]
    (own / "big.h").write_bytes(bytes(kmodtree.OWN_MAX))
    with pytest.raises(UsageError, match="too much"):
        kmodtree.check_own(own)
    (own / "big.h").unlink()
    for number in range(kmodtree.OWN_EDITIONS):
        (own / f"e{number}.c").touch()
    with pytest.raises(UsageError, match="17 C files, not 1 to 16"):
        kmodtree.check_own(own)


def test_what_a_build_left_there_is_not_taken(own: Path, tmp_path: Path) -> None:
    for name in ("fast.o", "fast.mod.c", ".fast.o.cmd", "Kbuild"):
        (own / name).write_text("mine\n")
    kmodtree.with_own(paths.kmod_dir(), own, tmp_path / "staged")
    names = {path.name for path in (tmp_path / "staged/own").iterdir()}
    assert names == {"fast.c", "Kbuild"}
    assert "hs_own_fast" in (tmp_path / "staged/own/Kbuild").read_text()
