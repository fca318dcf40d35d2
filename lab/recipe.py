# SPDX-License-Identifier: GPL-2.0-or-later
"""Image recipes: images/NAME.toml says which packages of which Debian suite make a guest."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lab import arch as arches
from lab import paths
from lab.arch import Arch
from lab.errors import UsageError

# What every guest has, whatever its kernel.
BASE_PACKAGES = (
    # to build a module and the lab's tools
    *("gcc", "make", "libc6-dev", "binutils", "sed", "mawk", "grep", "findutils", "diffutils"),
    # to be a guest
    *("bash", "dash", "coreutils", "tar", "gzip", "libc-bin", "kmod", "busybox-static", "dropbear-bin"),
)


@dataclass(frozen=True, slots=True)
class Recipe:
    """One image recipe, for every architecture it can be made for."""

    name: str
    summary: str  # one line for `lab list kernels`
    suite: str  # Debian's name of the release
    kernel: dict[str, str]  # architecture -> Debian's kernel flavour
    packages: tuple[str, ...] = ()  # beside BASE_PACKAGES and the kernel's
    check_valid_until: bool = True  # refuse package lists past their date

    @property
    def arches(self) -> tuple[str, ...]:
        """The architectures this recipe is for."""
        return tuple(self.kernel)

    def all_packages(self, arch: Arch) -> tuple[str, ...]:
        """Every package asked for by name; their dependencies come with them."""
        flavour = self.kernel[arch.name]
        return (*BASE_PACKAGES, f"linux-image-{flavour}", f"linux-headers-{flavour}", *self.packages)

    def digest(self, arch: Arch) -> str:
        """What an image of this recipe depends on, as 16 hexadecimal digits: recipe, files and builder."""
        sha = hashlib.sha256()
        sha.update(json.dumps([asdict(self), self.all_packages(arch), arch.name], sort_keys=True).encode())
        builder = (Path(__file__).parent / name for name in ("imagebuild.py", "initrd.py", "packages.py"))
        for path in (*sorted(files_dir().rglob("*")), *builder):
            if path.is_file():
                sha.update(f"{path.name}\0{path.stat().st_size}\0".encode() + path.read_bytes())
        return sha.hexdigest()[:16]


def files_dir() -> Path:
    """The few files a guest gets that are no package's."""
    return paths.recipes_dir() / "files"


def recipes() -> dict[str, Recipe]:
    """Every recipe by name, in the order of their names; UsageError naming file and key of a bad one."""
    return {path.stem: load(path) for path in sorted(paths.recipes_dir().glob("*.toml"))}


def get(name: str, arch: Arch) -> Recipe:
    """The recipe of that name; UsageError when there is none or not for this architecture."""
    known = recipes()
    if name not in known:
        raise UsageError(f"unknown kernel '{name}'", hint=f"known: {', '.join(known)}")
    recipe = known[name]
    if arch.name not in recipe.arches:
        raise UsageError(f"kernel '{name}' is not for {arch.name}", hint=f"it is for: {', '.join(recipe.arches)}")
    return recipe


def load(path: Path) -> Recipe:
    """Read one recipe; UsageError with file, line or key, and what is wrong with it."""
    try:
        return _parsed(path, path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise UsageError(f"{path}: {e}", hint="the file is not valid TOML") from e
    except OSError as e:
        raise UsageError(f"{path}: {e.strerror}") from e


@cache
def _parsed(path: Path, text: str) -> Recipe:
    raw = tomllib.loads(text)
    kinds = {"summary": str, "suite": str, "kernel": dict, "packages": list, "check_valid_until": bool}
    for key, value in raw.items():
        if key not in kinds:
            raise UsageError(f"{path}: unknown key '{key}'", hint=f"known: {', '.join(kinds)}")
        if not isinstance(value, kinds[key]):
            raise UsageError(f"{path}: '{key}' must be a {kinds[key].__name__}, not {value!r}")
    for key in ("summary", "suite", "kernel"):
        if not raw.get(key):
            raise UsageError(f"{path}: '{key}' is missing", hint="see images/bookworm.toml")
    for key, value in raw["kernel"].items():
        if key not in arches.ARCHES:
            raise UsageError(f"{path}: unknown architecture 'kernel.{key}'", hint=f"known: {', '.join(arches.ARCHES)}")
        _check_word(path, f"kernel.{key}", value)
    _check_word(path, "suite", raw["suite"])
    for value in raw.get("packages", []):
        _check_word(path, "packages", value)
    return Recipe(name=path.stem, **(raw | {"packages": tuple(raw.get("packages", ()))}))


def _check_word(path: Path, key: str, value: Any) -> None:
    """Names go on apt's command line: only what a Debian name may hold."""
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9+.-]*", value):
        raise UsageError(f"{path}: '{key}' holds {value!r}, which is not a Debian name")
