# SPDX-License-Identifier: GPL-2.0-or-later
"""What module authors bring: tests of their own, editions of their own, a kernel of their own."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from lab import arch as arches
from lab import image, kerneltree, paths
from lab.catalogue import Oracle
from lab.verdict import Status
from tests.vm.conftest import KERNELS, Run

EXAMPLES = paths.REPOSITORY / "examples"
EXAMPLE_S = 600
INSTALLED = any(one.value == "lab.pytest_plugin" for one in entry_points(group="pytest11"))


def test_the_example_of_the_pytest_plugin(arch: str, tmp_path: Path) -> None:
    """In a folder of its own: no conftest.py, no settings and no module of this repository is in its way."""
    folder = tmp_path / "elsewhere"
    shutil.copytree(EXAMPLES / "pytest", folder)
    argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--rootdir={folder}", "--strict-markers", "-v"]
    argv += [] if INSTALLED else ["-p", "lab.pytest_plugin"]
    # another number of processors is another machine, which is booted once: seen on one architecture
    argv += ["-k", "not Four"] if arch == "aarch64" else []
    argv += ["--lab-arch", arch, "--lab-kernel", KERNELS[arch], str(folder)]
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=EXAMPLE_S)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"test_it_counts[{arch}-{KERNELS[arch]}] PASSED" in done.stdout


def test_editions_of_ones_own_answer_beside_the_shipped_ones(run: Run, arch: str) -> None:
    result = run(f"{arch}/{KERNELS[arch]}/refcount/mixed", kmod=str(EXAMPLES / "edition"))
    assert result.status is Status.PASS, result.reason
    assert result.calls and result.calls["wrong"] == 0
    assert result.editions and result.editions["crc4"] > 0 and result.editions["weyl"] > 0
    assert len(result.editions) == 4


def test_an_edition_of_ones_own_that_is_wrong_is_caught(run: Run, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    source = (EXAMPLES / "edition/crc4.c").read_text()
    (own / "crc4.c").write_text(source.replace("call->result = crc;", "call->result = crc ^ (call->arg % 64 == 3);"))
    result = run(f"x86_64/{KERNELS['x86_64']}/refcount/syscall", kmod=str(own))
    assert result.status is Status.FAIL, result.reason
    assert Oracle.RESULTS in [one["oracle"] for one in result.oracles if one["ok"] is False]


def test_an_edition_that_does_not_compile_is_told_by_file_and_line(run: Run, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "typo.c").write_text("#include <hs_edition.h>\n\nstatic int x = nothing;\n")
    result = run(f"x86_64/{KERNELS['x86_64']}/refcount/syscall", kmod=str(own))
    assert result.status is Status.ERROR
    assert f"{own}/typo.c:3:" in result.reason and "nothing" in result.reason


@pytest.fixture
def tree(arch: str, tmp_path: Path) -> Path:
    """Another kernel than the user land's, as a build tree."""
    native = arches.native()
    assert native is not None
    spec = importlib.util.spec_from_file_location("debian_tree", EXAMPLES / "kernel/debian_tree.py")
    assert spec is not None and spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    own, lender = (image.ensure("bookworm", one, progress=print) for one in (arches.get(arch), native))
    example.lay_out(own, lender, tmp_path / "tree")
    return tmp_path / "tree"


def test_a_kernel_of_ones_own(run: Run, arch: str, tree: Path) -> None:
    read = kerneltree.read(tree)
    result = run(f"{arch}/{read.name}/refcount/syscall", trees=(read,))
    assert result.status is Status.PASS, result.reason
    assert result.release == result.kernel == read.release
    assert result.release.startswith("6.1.")
