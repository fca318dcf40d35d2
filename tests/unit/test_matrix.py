# SPDX-License-Identifier: GPL-2.0-or-later
"""Matrix files and filters: which cells, and one good line for every bad input."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab import matrix, profile, tomlfile
from lab.cell import Cell
from lab.errors import UsageError
from lab.matrix import Filters, Known

KNOWN = Known(
    kernel={
        "bookworm": ("x86_64", "aarch64"),
        "trixie": ("x86_64", "aarch64"),
        "sid": ("x86_64", "aarch64"),
        "trixie-rt": ("x86_64", "aarch64"),
        "trixie-16k": ("aarch64",),
    }
)
GOOD = """\
# a comment
swaps = 7

[[matrix]]
arch = ["x86_64"]
kernel = ["trixie"]
mechanism = ["refcount"]
load = ["irq"]
"""


def cells(name: str = "default", **asked: list[str]) -> list[Cell]:
    return matrix.cells(profile.profile(name), Filters(**asked), KNOWN, source=name, place=lambda _number, _axis: name)


def refused(tmp_path: Path, text: str) -> UsageError:
    path = tmp_path / "my.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        matrix.cells(
            profile.load(path),
            Filters(),
            KNOWN,
            source=str(path),
            place=lambda number, axis: tomlfile.place(path, "matrix", number, axis),
        )
    assert "\n" not in caught.value.message and "\n" not in caught.value.hint
    assert caught.value.message.startswith(str(path))
    assert caught.value.hint
    return caught.value


def test_the_default_matrix_is_72_cells() -> None:
    found = cells()
    assert len(found) == len(set(found)) == 72
    assert found[0].id == "x86_64/bookworm/reload/syscall"
    assert {cell.hardware for cell in found} == {"standard"}


def test_every_profile_shipped_is_valid() -> None:
    assert set(profile.profiles()) == {"default", "nightly", "smoke"}
    for name, summary in profile.profiles().items():
        assert summary
        assert cells(name)


def test_the_nightly_matrix_leaves_nothing_out() -> None:
    found = cells("nightly")
    assert len(found) == len(set(found)) == 172  # as README says
    for axis in matrix.AXES:
        assert {getattr(cell, axis) for cell in found} == set(KNOWN.names(axis))
    assert profile.profile("nightly").swaps > profile.profile("default").swaps


def test_filters_narrow() -> None:
    found = cells(arch=["aarch64"], kernel=["trixie"], mechanism=["refcount"], load=["mixed"])
    assert [cell.id for cell in found] == ["aarch64/trixie/refcount/mixed"]


def test_a_kernel_outside_the_profile_can_be_asked_for() -> None:
    assert {cell.kernel for cell in cells(kernel=["sid"])} == {"sid"}
    assert len(cells(kernel=["sid", "trixie"])) == 72


def test_hardware_replaces_standard() -> None:
    assert {cell.hardware for cell in cells(hardware=["smp4", "standard"])} == {"smp4", "standard"}


def test_a_filter_narrows_every_block_of_a_profile() -> None:
    found = cells("nightly", arch=["x86_64"])
    assert {cell.arch for cell in found} == {"x86_64"}
    assert "no-nx" in {cell.hardware for cell in found} and "no-pac" not in {cell.hardware for cell in found}


def test_filters_that_leave_nothing_are_a_usage_error() -> None:
    with pytest.raises(UsageError, match="no cell of nightly has --arch x86_64 --hardware no-pac"):
        cells("nightly", arch=["x86_64"], hardware=["no-pac"])


@pytest.mark.parametrize(
    ("axis", "label"),
    [
        ("arch", "architecture"),
        ("kernel", "kernel"),
        ("mechanism", "mechanism"),
        ("load", "load"),
        ("hardware", "hardware"),
    ],
)
def test_unknown_names_are_told_with_the_known(axis: str, label: str) -> None:
    with pytest.raises(UsageError, match=f"^unknown {label} 'riscv64'$") as caught:
        cells(**{axis: ["riscv64"]})
    assert caught.value.hint == f"known: {', '.join(KNOWN.names(axis))}"


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"kernel": ["trixie-16k"]}, "kernel 'trixie-16k' is not for x86_64"),
        ({"hardware": ["no-pac"], "arch": ["x86_64"]}, "hardware 'no-pac' is not for x86_64"),
        ({"hardware": ["no-nx"]}, "hardware 'no-nx' is not for aarch64"),
    ],
)
def test_contradictions_are_usage_errors(asked: dict[str, list[str]], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        cells(**asked)
    assert words in caught.value.message
    assert "--arch" in caught.value.hint


def test_a_single_cell_is_checked_too() -> None:
    matrix.check_cell(Cell.parse("aarch64/trixie-16k/refcount/irq@gicv2"), KNOWN)
    with pytest.raises(UsageError, match="unknown mechanism 'x'"):
        matrix.check_cell(Cell.parse("aarch64/trixie/x/irq"), KNOWN)
    with pytest.raises(UsageError, match="is not for x86_64"):
        matrix.check_cell(Cell.parse("x86_64/trixie-16k/refcount/irq"), KNOWN)
    with pytest.raises(UsageError) as typed:
        cells(kernel=["trixie-16k"], arch=["x86_64"])
    assert typed.value.message.startswith("x86_64/trixie-16k/"), "no file says so"


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        (GOOD.replace("swaps", "swapz"), ":2: swapz", "unknown key"),
        (GOOD.replace("kernel", "kernels"), ":6: kernels", "unknown key"),
        (GOOD.replace('kernel = ["trixie"]', ""), ":4: kernel", "is missing"),
        (GOOD + 'kernels = ["x"]\n', ":9: kernels", "unknown key"),
        (GOOD + "\n[[matrix]]\n" + GOOD.split("[[matrix]]\n")[1] + "swaps = 3\n", ":15: swaps", "unknown key"),
        (GOOD.replace("swaps = 7", "swaps = 4001"), ":2: swaps", "less than or equal to 4000"),
        (GOOD.replace("swaps = 7", "swaps = 0"), ":2: swaps", "greater than or equal to 1"),
        (GOOD.replace("swaps = 7", 'swaps = "7"'), ":2: swaps", "valid integer"),
        (GOOD.replace('load = ["irq"]', 'load = "irq"'), ":8: load", "valid list"),
        (GOOD.replace('load = ["irq"]', "load = []"), ":8: load", "at least 1"),
        (GOOD.replace('load = ["irq"]', 'load = ["irq"'), ":8: not valid TOML", "Unclosed array"),
        (GOOD.replace('load = ["irq"]', "load = irq"), ":8: not valid TOML", "Invalid value"),
        (GOOD + 'arch = ["aarch64"]\n', ":9: not valid TOML", "Cannot overwrite"),
        ("swaps = 3\n", ":1: matrix", "is missing"),
        ("", ":1: matrix", "is missing"),
        (GOOD.replace("[[matrix]]", "[matrix]"), ":4: matrix", "two brackets: [[...]]"),
        (GOOD.replace("swaps = 7", "seed = 0"), ":2: seed", "greater than or equal to 1"),
        (GOOD.replace('"x86_64"', '"riscv64"'), ":5: arch: unknown architecture", "'riscv64'"),
        (
            GOOD + "\n[[matrix]]\n" + GOOD.split("[[matrix]]\n")[1].replace("irq", "iqr"),
            ":14: load: unknown load",
            "'iqr'",
        ),
        (GOOD.replace('"trixie"', '"trixie-16k"'), ":6: kernel: x86_64/trixie-16k/", "is not for x86_64"),
        (GOOD + 'hardware = ["gicv2"]\n', ":9: hardware: x86_64/trixie/", "is not for x86_64"),
    ],
)
def test_a_bad_file_is_told_by_file_line_and_key(tmp_path: Path, text: str, place: str, words: str) -> None:
    error = refused(tmp_path, text)
    assert f"my.toml{place}" in error.message
    assert words in error.message


def test_other_bad_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        profile.load(tmp_path / "none.toml")
    with pytest.raises(UsageError, match="Is a directory"):
        profile.load(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b"summary = '\xe9'")
    with pytest.raises(UsageError, match="not UTF-8"):
        profile.load(tmp_path / "latin.toml")
    with pytest.raises(UsageError, match="unknown profile 'weekly'"):
        profile.profile("weekly")


@settings(max_examples=40)
@given(st.binary(max_size=300).map(lambda data: data.decode(errors="replace")))
def test_no_text_breaks_it(text: str) -> None:
    import tempfile

    with tempfile.NamedTemporaryFile(suffix=".toml") as file:
        file.write(text.encode())
        file.flush()
        with pytest.raises(UsageError):
            profile.load(Path(file.name))
