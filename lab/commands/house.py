# SPDX-License-Identifier: GPL-2.0-or-later
"""lab image, gc, doctor: what the lab keeps on this machine, and whether the machine can do the work."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from lab.commands import options as opt
from lab.commands import select
from lab.errors import Exit, LabError, UsageError

image_app = typer.Typer(
    no_args_is_help=True, help="Images: the bases of guests.\n\nExample: lab image list", rich_markup_mode=None
)

Names = Annotated[list[str] | None, typer.Argument(metavar="[KERNEL]...", help="Which; see: lab list kernels.")]


@image_app.command("build")
def image_build(names: Names = None, arch: opt.Arches = None) -> None:
    """Build images that are not cached yet; without names those of the default matrix.

    Example: lab image build sid --arch aarch64
    """
    from lab import arch as arches
    from lab import image

    choice = opt.Choice(arch=arch, kernel=names)
    select.check(choice)
    if names:
        recipes = image.recipes()
        pairs = [(name, one) for name in names for one in recipes[name].arches if not arch or one in arch]
    else:
        cells, _ = select.cells(choice)
        pairs = list(dict.fromkeys((cell.kernel, cell.arch) for cell in cells))
    if not pairs:
        raise UsageError(f"{', '.join(names or ())}: not for {', '.join(arch or ())}", hint="see: lab list kernels")
    for name, one in pairs:
        built = image.ensure(name, arches.get(one), progress=lambda text: print(text, file=sys.stderr))
        print(f"{name} {one} {built.release} {built.folder}")


@image_app.command("debug")
def image_debug(
    name: Annotated[str, typer.Argument(metavar="KERNEL", help="Which; see: lab list kernels.")],
    arch: Annotated[str, typer.Option(metavar="ARCH", help="Of which architecture.")],
) -> None:
    """Fetch the debug information of an image's kernel, about 300 MB; lab gdb, drgn and crash use it.

    Example: lab image debug trixie --arch aarch64
    """
    from lab import arch as arches
    from lab import image, imagedebug

    def told(text: str) -> None:
        print(text, file=sys.stderr)

    print(imagedebug.ensure(image.ensure(name, arches.get(arch), progress=told), progress=told))


@image_app.command("list")
def image_list(as_json: opt.Json = False) -> None:
    """Every image: whether it is cached, its kernel, its size.

    Example: lab image list
    """
    rows = [_image_row(name, one) for name, arches in _recipes() for one in arches]
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    for row in rows:
        size = f"{row['mib']:6} MiB  {row['release']}" if row["cached"] else "     - not built"
        print(f"{row['kernel']:<12} {row['arch']:<8} {size}")


@image_app.command("rm")
def image_rm(
    names: Names = None,
    everything: Annotated[bool, typer.Option("--all", help="Every cached image.")] = False,
    arch: opt.Arches = None,
) -> None:
    """Remove cached images; they are built again when needed.

    Example: lab image rm sid
    """
    from lab import image

    if bool(names) == everything:
        raise UsageError("name the images to remove, or say --all", hint="see: lab image list")
    select.check(opt.Choice(arch=arch, kernel=names))
    found = image.images_dir().glob("[!.]*-*-*") if image.images_dir().is_dir() else ()
    for folder in sorted(path for path in found if path.is_dir()):
        name, one, _ = folder.name.rsplit("-", 2)
        if (everything or name in (names or ())) and (not arch or one in arch):
            with image.locked(folder, progress=lambda text: print(text, file=sys.stderr)):
                image.remove_folder(folder)
            print(f"removed {folder}")


def gc(
    keep: Annotated[
        int | None, typer.Option("--keep", metavar="N", min=1, help="Remove runs, too, but the newest N.")
    ] = None,
    days: Annotated[float, typer.Option("--days", metavar="D", min=0, help="And those younger than D days.")] = 0.0,
    results: opt.ResultsDir = opt.RESULTS,
) -> None:
    """Remove what killed labs left behind (guests, sockets, disks), and of the cache what is no longer used.

    That is images of older recipes with their warm states and headers, and builds, states and headers that nobody
    used for two weeks. Runs are results: they go only when --keep says how many stay.

    Example: lab gc --keep 30 --days 90
    """
    if days and keep is None:
        raise UsageError("--days spares runs from --keep", hint="say how many stay: --keep N")
    from lab import headers, host, image, kbuild, rack, retention, stayed, warm

    removed = rack.gc() + stayed.gc()
    busy_s = rack.oldest_s()
    for collect in (image.gc, warm.gc, headers.gc, kbuild.gc, host.gc):
        removed += collect(busy_s)
    if keep is not None:
        removed += retention.retire(results, keep=keep, days=days)
    for line in removed:
        print(f"removed {line}")


def doctor(as_json: opt.Json = False) -> int:
    """Say whether this machine can run guests, and what is missing.

    Example: lab doctor
    """
    checks = [_packages(), _space(), _hypervisor(), *(_accel(name) for name in select.known().arch)]
    if as_json:
        print(json.dumps(checks, indent=2))
    else:
        for check in checks:
            print(f"{'ok ' if check['ok'] else 'BAD'}  {check['what']}: {check['detail']}")
            if check["hint"]:
                print(f"     {check['hint']}")
    return Exit.OK if all(check["ok"] for check in checks) else Exit.INFRA


def _check(what: str, detail: str, *, ok: bool = True, hint: str = "") -> dict[str, Any]:
    return {"what": what, "ok": ok, "detail": detail, "hint": hint}


def _packages() -> dict[str, Any]:
    from lab import host

    missing = host.missing_packages()
    return _check(
        "packages",
        f"missing: {' '.join(missing)}" if missing else "all installed",
        ok=not missing,
        hint="run: make setup" if missing else "",
    )


def _space() -> dict[str, Any]:
    import shutil

    from lab import imagebuild, paths

    try:
        free = shutil.disk_usage(paths.cache_dir()).free >> 20
    except LabError as e:
        return _check("space", e.message, ok=False, hint=e.hint)
    enough = free >= imagebuild.NEEDED_MIB
    hint = "" if enough else "free some, or set LAB_CACHE_DIR to a larger place"
    return _check("space", f"{free:,} MiB free in {paths.cache_dir()}", ok=enough, hint=hint)


def _hypervisor() -> dict[str, Any]:
    try:
        from lab.rack import open_rack

        with open_rack() as opened:
            libvirt, qemu = opened.hypervisor.version()
        return _check("libvirt", f"{libvirt}, QEMU {qemu}")
    except LabError as e:
        return _check("libvirt", e.message, ok=False, hint=e.hint if e.hint != "run: lab doctor" else "run: make setup")
    except ModuleNotFoundError as e:
        return _check("libvirt", f"the Python package '{e.name}' is not installed", ok=False, hint="run: make setup")


def _accel(name: str) -> dict[str, Any]:
    from lab import arch, host

    try:
        choice = host.accel(arch.get(name), "auto", progress=lambda text: print(text, file=sys.stderr))
    except LabError as e:
        return _check(f"accel for {name}", e.message, ok=False, hint=e.hint)
    return _check(f"accel for {name}", f"{choice.accel.value} ({choice.reason})")


def _recipes() -> list[tuple[str, tuple[str, ...]]]:
    from lab import image

    return [(name, one.arches) for name, one in image.recipes().items()]


def _image_row(name: str, one: str) -> dict[str, Any]:
    from lab import arch, image

    row = arch.get(one)
    folder = image.images_dir() / f"{name}-{one}-{image.recipes()[name].digest(row)}"
    found = image.load(folder, row)
    size = sum(path.stat().st_blocks * 512 for path in folder.iterdir()) >> 20 if found else None
    return {
        "kernel": name,
        "arch": one,
        "cached": found is not None,
        "release": found.release if found else None,
        "mib": size,
        "folder": str(folder) if found else None,
    }
