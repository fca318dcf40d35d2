# SPDX-License-Identifier: GPL-2.0-or-later
"""kcidb.json: a run for KernelCI's database, after version 5.3 of its schema. Written, never sent: that is the user's.

A kernel with the lab's modules is a checkout, its build for an architecture a build; a cell is a test, and so are its
oracles, below it by their paths. What the product did wrong is FAIL; where the lab or its host failed it is MISS, since
nothing is known of the kernel then. Figures are tests, too, with a number and DONE: they are no verdict.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lab.catalogue import Oracle
from lab.cellresult import CellResult
from lab.errors import UsageError
from lab.untrusted import clean
from lab.verdict import Status

VERSION = {"major": 5, "minor": 3}
VARIABLE = "LAB_KCIDB_ORIGIN"  # the name under which the user submits
ORIGIN = "lab"
EXCERPT_CHARS = 16_384  # the schema's
_STATUSES = {Status.PASS: "PASS", Status.SKIP: "SKIP", Status.ERROR: "MISS"}


def origin() -> str:
    """The name of the system that reports. UsageError when it is not one that KCIDB takes."""
    name = os.environ.get(VARIABLE) or ORIGIN
    if not re.fullmatch(r"[a-z0-9_]+", name):
        raise UsageError(
            f"{VARIABLE}={name!r} is no origin", hint="an origin has lower-case letters, digits and _ only"
        )
    return name


def render(head: Mapping[str, Any], results: Sequence[CellResult]) -> str:
    """The whole file."""
    by = origin()
    run = f"{by}:{head['run']}-{head['seed']}"  # two hosts may begin a run in the same second
    kernels = dict.fromkeys(result.kernel for result in results)
    builds = dict.fromkeys((result.arch, result.kernel) for result in results)
    told = {
        "version": VERSION,
        "checkouts": [_checkout(by, run, head, kernel, results) for kernel in kernels],
        "builds": [_build(by, run, arch, kernel, results) for arch, kernel in builds],
        "tests": [test for result in results for test in _tests(by, run, head, result)],
    }
    return json.dumps(told, indent=2) + "\n"


def _checkout(by: str, run: str, head: Mapping[str, Any], kernel: str, results: Sequence[CellResult]) -> dict[str, Any]:
    releases = sorted({one.release for one in results if one.kernel == kernel and one.release})
    of = f" ({', '.join(releases)})" if releases else ""
    return {
        "id": f"{run}/{_text(kernel)}",
        "origin": by,
        "comment": _text(f"the kernel of the image '{kernel}'{of}, and the modules of the lab"),
        "start_time": head["started"],
        "valid": True,
    }


def _build(by: str, run: str, arch: str, kernel: str, results: Sequence[CellResult]) -> dict[str, Any]:
    cells = [one for one in results if (one.arch, one.kernel) == (arch, kernel)]
    build = {
        "id": f"{run}/{_text(kernel)}/{_text(arch)}",
        "origin": by,
        "checkout_id": f"{run}/{_text(kernel)}",
        "architecture": re.sub(r"[^a-z0-9_]", "_", arch),
        "config_name": _text(kernel),
        "comment": _text(", ".join(sorted({one.release for one in cells if one.release}))),
    }
    if any("start_s" in one.phases for one in cells):  # guests start once the modules are built
        build["status"] = "PASS"
    return build


def _tests(by: str, run: str, head: Mapping[str, Any], result: CellResult) -> Iterator[dict[str, Any]]:
    common = {
        "origin": by,
        "build_id": f"{run}/{_text(result.kernel)}/{_text(result.arch)}",
        "environment": {
            "comment": _text(", ".join(word for word in (result.arch, result.hardware, result.accel or "") if word)),
            "misc": {
                "hardware": _text(result.hardware),
                "accelerator": _text(result.accel or ""),
                "release": _text(result.release or ""),
                "host": {name: _text(str(head["host"][name])) for name in ("cpu", "os") if name in head["host"]},
            },
        },
    }
    names = ["lab", *(["mutant", result.mutant] if result.mutant else []), result.mechanism, result.load]
    path, name = ".".join(_step(one) for one in names), f"{run}/{_text(result.id)}"
    yield {
        **common,
        "id": name,
        "path": path,
        "status": _STATUSES.get(result.status, "FAIL"),
        "comment": _text(f"{result.verdict}: {result.reason}{f'; {result.known}' if result.known else ''}"),
        **({"duration": result.duration_s} if result.duration_s is not None else {}),
        **({"log_excerpt": excerpt} if (excerpt := _excerpt(result)) else {}),
        "misc": {
            "verdict": result.status.value,
            "seed": result.seed,
            "calls": result.calls,
            "swaps": result.swaps,
            "next": _text(result.next),
        },
    }
    for one in result.oracles:
        step = f"oracle_{one['oracle']}_{Oracle.told(one['oracle'])}".rstrip("_")
        status = {True: "PASS", False: "FAIL", None: "SKIP"}[one["ok"]]
        told = {
            "id": f"{name}/{step}",
            "path": f"{path}.{step}",
            "status": status,
            "comment": _text(str(one["detail"])),
        }
        yield {**common, **told}
    for step, ns in _figures(result).items():
        number = {"value": ns / 1e9, "unit": "s", "prefix": "metric"}
        yield {**common, "id": f"{name}/{step}", "path": f"{path}.{step}", "status": "DONE", "number": number}


def _figures(result: CellResult) -> dict[str, int]:
    """What was measured, ns. A blackout that is a bound says so in its name."""
    drain = (result.swap_ns or {}).get("drain") or {}
    during = (result.latency_ns or {}).get("during") or {}
    exact = "blackout" if result.blackout_exact else "blackout_bound"
    found = {exact: result.blackout_ns, "drain_p50": drain.get("p50"), "latency_p999": during.get("p999")}
    return {name: ns for name, ns in found.items() if ns is not None}


def _excerpt(result: CellResult) -> str:
    """Of a red cell: what was violated, and the first splat."""
    if not result.status.red:
        return ""
    lines = [result.reason]
    lines += [f"oracle {one['oracle']}: {one['detail']}" for one in result.oracles if one["ok"] is not True]
    lines += [line for splat in (result.splats or [])[:1] for line in splat["excerpt"]]
    return clean("\n".join(lines))[:EXCERPT_CHARS]


def _step(name: str) -> str:
    """A step of a test's path."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name) or "_"


def _text(text: str) -> str:
    return " ".join(clean(text).split())[:1000]
