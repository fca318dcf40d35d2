# SPDX-License-Identifier: GPL-2.0-or-later
"""Recipes: those of the project are sound, bad ones are refused with file and key."""

from pathlib import Path

import pytest

from lab import arch as arches
from lab import recipe
from lab.errors import UsageError

GOOD = 'summary = "one"\nsuite = "bookworm"\n[kernel]\nx86_64 = "cloud-amd64"\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "files" / "etc").mkdir(parents=True)
    (tmp_path / "files" / "init").write_text("#!/bin/sh\n")
    monkeypatch.setattr("lab.paths.recipes_dir", lambda: tmp_path)
    return tmp_path


def test_the_project_has_its_recipes() -> None:
    known = recipe.recipes()
    assert set(known) >= {"bookworm", "trixie", "sid", "trixie-rt", "trixie-16k"}
    assert known["trixie-16k"].arches == ("aarch64",)
    assert [name for name, one in known.items() if not one.check_valid_until] == ["sid"]
    for one in known.values():
        for name in one.arches:
            flavour = one.kernel[name]
            packages = one.all_packages(arches.get(name))
            assert {f"linux-image-{flavour}", f"linux-headers-{flavour}", "gcc", "dropbear-bin"} <= set(packages)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("suite = \n", "line 1"),
        ('summary = "one"\nsuite = "bookworm"\n', "'kernel' is missing"),
        (GOOD.replace("x86_64", "riscv64"), "unknown architecture 'kernel.riscv64'"),
        ('colour = "red"\n' + GOOD, "unknown key 'colour'"),
        ('packages = "gdb"\n' + GOOD, "'packages' must be a list"),
        ('packages = ["gdb; reboot"]\n' + GOOD, "'packages' holds 'gdb; reboot'"),
        (GOOD.replace("cloud-amd64", "--purge"), "'kernel.x86_64' holds '--purge'"),
        (GOOD.replace('"cloud-amd64"', "7"), "'kernel.x86_64' holds 7"),
        ("check_valid_until = 1\n" + GOOD, "'check_valid_until' must be a bool"),
    ],
)
def test_a_bad_recipe_is_refused_by_file_and_key(folder: Path, text: str, said: str) -> None:
    (folder / "broken.toml").write_text(text)
    with pytest.raises(UsageError) as caught:
        recipe.recipes()
    assert str(folder / "broken.toml") in caught.value.message
    assert said in caught.value.message
    assert "\n" not in caught.value.message


def test_unknown_kernel_and_wrong_architecture_name_what_there_is(folder: Path) -> None:
    (folder / "one.toml").write_text(GOOD)
    with pytest.raises(UsageError, match="unknown kernel 'two'") as caught:
        recipe.get("two", arches.get("x86_64"))
    assert "one" in caught.value.hint
    with pytest.raises(UsageError, match="not for aarch64"):
        recipe.get("one", arches.get("aarch64"))


def test_the_digest_follows_everything_the_image_is_made_of(folder: Path) -> None:
    path = folder / "one.toml"

    def digest(arch: str = "x86_64") -> str:
        return recipe.load(path).digest(arches.get(arch))

    path.write_text(GOOD + 'aarch64 = "cloud-arm64"\n')
    first = digest()
    assert first == digest()
    assert first != digest("aarch64")
    (folder / "files" / "init").write_text("#!/bin/sh\nexit\n")
    second = digest()
    assert second != first
    path.write_text('packages = ["gdb"]\n' + path.read_text())
    assert digest() not in (first, second)
