# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest with modules and tools, driven by hand: for what an ordinary cell does not do."""

import json
from dataclasses import dataclass
from typing import Any

from lab import dmesg, oracles
from lab.deadline import Deadline
from lab.guest import Guest
from lab.workload import FOLDER

STEP_S = 120.0
MARK = dmesg.marker("7")


@dataclass
class Figures:
    """What the kernel and the callers counted."""

    stats: dict[str, Any]
    load: dict[str, Any]

    @property
    def callers(self) -> list[dict[str, Any]]:
        """Threads and interrupt sources; under load `stuck` the last two threads are those that stay."""
        return [source for source in self.stats["sources"] if "raised" in source] + list(self.load["threads"])

    @property
    def aborted(self) -> int:
        """Calls cut off, by the kernel's count."""
        return sum(edition["aborted"] for edition in self.stats["editions"])

    @property
    def again(self) -> int:
        """Calls made again, by the callers' count."""
        return int(self.stats["nested"]["again"]) + sum(one["retried"] + one["recovered"] for one in self.callers)


@dataclass
class Bench:
    """The guest, and the mechanism that it is to try."""

    guest: Guest
    mechanism: str

    def place(self, payload: bytes) -> None:
        """Put modules and tools into the guest."""
        self.guest.put_tar(payload, FOLDER, deadline=Deadline.after(STEP_S))
        self.guest.run(f"echo '{MARK}' >/dev/kmsg", deadline=Deadline.after(STEP_S))

    def sh(self, command: str, *, check: bool = True) -> str:
        """What the command says on stdout."""
        line = f"cd {FOLDER} && export LAB_SPEED={self.guest.rack.scale:.2f}; {command}"
        done = self.guest.run(line, deadline=Deadline.after(STEP_S * self.guest.rack.scale), check=check)
        return done.stdout.decode()

    def begin(
        self, stay: str = "", stay_us: int = 0, *, load: str = "stuck", core: str = "", edition: str = ""
    ) -> None:
        """Load the modules, and begin calls; under load `stuck` two of the callers stay in the edition that long."""
        more = f" --core '{core}'" if core else ""
        more += f" --edition '{edition}'" if edition else ""
        self.sh(f"./hs-ctl up --mechanism {self.mechanism} --load {load} --seed 7{more}")
        stays = f"--stay {stay} --stay-us {stay_us}" if stay else ""
        self.sh(f"./hs-load --load {load} --threads 2 --seed 7 {stays} >load.json 2>&1 </dev/null & sleep 0.1")

    def swap(self, count: int, *, edition: str = "") -> list[dict[str, Any]]:
        """So many swaps, each done."""
        more = f" --edition '{edition}'" if edition else ""
        lines = [json.loads(line) for line in self.sh(f"./hs-ctl swap --count {count} --seed 7{more}").splitlines()]
        done = [line for line in lines if "swap" in line]
        assert not [line for line in lines if "error" in line], lines
        assert len(done) == count, lines
        return done

    def publish(self, version: int) -> dict[str, Any]:
        """One swap to an edition that lies loaded before it is published: the loader has no part in it."""
        module = self.free()[0]
        loaded = self.sh(f"./hs-ctl insert {module} --parameters 'version={version} hold=1'")
        assert json.loads(loaded)["insert"]["error"] is None, loaded
        swap: dict[str, Any] = json.loads(self.sh("./hs-ctl publish"))["publish"]
        assert swap["error"] is None and swap["version"] == version and swap["module"], swap
        return swap

    def free(self) -> list[str]:
        """The modules of editions that are not loaded."""
        loaded = {line.split()[0] for line in self.sh("cat /proc/modules").splitlines()}
        return [one for one in ("hs_ed_mix", "hs_ed_fnv", "hs_ed_lfsr", "hs_ed_crc") if one not in loaded]

    def stats(self) -> dict[str, Any]:
        """What the kernel counts now."""
        found: dict[str, Any] = json.loads(self.sh("./hs-ctl stats"))["stats"]
        return found

    def load(self) -> dict[str, Any]:
        """What hs-load said last."""
        told = (json.loads(line) for line in self.sh("cat load.json").splitlines())
        found: dict[str, Any] = next(one["load"] for one in told if "load" in one)
        return found

    def down(self, *, backtraces: bool = False) -> None:
        """Nothing stays behind, and the kernel had nothing to say; `backtraces` if they were asked for."""
        down = json.loads(self.sh("./hs-ctl down"))["down"]
        assert down == {"leaks": [], "modules_left": [], "drained": True}
        log = dmesg.read(self.sh("dmesg"), mark=MARK)
        splats = [one for one in log.splats if not (backtraces and one.kind is dmesg.Kind.DUMP)]
        assert not splats, splats[0].decisive

    def refusals(self) -> list[dict[str, Any]]:
        """What a swapper must not be allowed to do, and was not."""
        refused: list[dict[str, Any]] = json.loads(self.sh("./hs-ctl refuse"))["refusals"]
        assert {one["case"] for one in refused} == set(oracles.REFUSAL_CASES)
        assert all(one["refused"] and one["same"] and one["got"] == one["expected"] for one in refused), refused
        return refused

    def end(self, *, backtraces: bool = False) -> Figures:
        """Stop the load, take everything down, and check what holds whatever was done."""
        self.sh("./hs-ctl stop")
        figures = Figures(self.stats(), self.load())
        self.down(backtraces=backtraces)
        assert all(one["wrong"] == 0 and one["failed"] == 0 for one in figures.callers)
        assert figures.aborted == figures.again
        return figures
