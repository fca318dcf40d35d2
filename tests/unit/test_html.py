# SPDX-License-Identifier: GPL-2.0-or-later
"""The page of a run: where its pictures put things, that it is whole and bounded, and shows a guest's words as text."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import lxml.html
import pytest

from lab import dmesg, runlog
from lab.report import html, latency, timeline
from lab.verdict import Status
from tests import runs

MS = runs.MS
NAME = "x86_64/bookworm/refcount/mixed"
HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(1)>{{ 7*7 }}\x1b]0;owned\x07\x00\u202e\ud800'


def log(**parts: Any) -> runlog.RunLog:
    return runlog.read({**runs.raw(swaps=2, gaps=10), **parts})


def page(folder: Path, *results: Any) -> str:
    return html.render(runs.head(results), results, folder)


# --- latencies


def test_bars_stand_where_their_calls_are_and_none_is_lost() -> None:
    hist = {"before": [[0, 5]], "during": [[64, 90], [64 + 160, 10]], "after": []}
    thread = {"kind": "syscall", "issued": 105, "completed": 105, "failed": 0, "hist": hist}
    found = latency.histogram(log(load={"started_ns": 1, "ended_ns": 2, "sub_bits": 4, "threads": [thread]}))
    assert found is not None
    before, during, after = found.phases
    assert [(bar.x, bar.count) for bar in before.bars] == [(0, 5)]  # 0 ns stands with the shortest
    # bucket 64 ends at 135 ns (2.13 decades), 160 buckets later it is ten octaves more (5.14)
    assert [(bar.x, bar.count) for bar in during.bars] == [(21, 90), (51, 10)]
    assert during.bars[0].height == latency.HEIGHT > during.bars[1].height > 1
    assert (after.bars, after.title) == ((), "after the swaps: no calls")
    assert found.ticks == ("1 ns", "10 ns", "100 ns", "1 us", "10 us", "100 us", "1 ms")
    assert found.width == 60 == (len(found.ticks) - 1) * latency.PER_DECADE
    assert during.p50_x == pytest.approx(21.3, abs=0.05) and "90" not in during.told[0]


def test_there_is_no_histogram_without_calls() -> None:
    assert latency.histogram(log(load=None)) is None
    load = {"started_ns": 1, "ended_ns": 2, "sub_bits": 4, "threads": []}
    assert latency.histogram(log(load=load, stats=None)) is None


# --- time


def swap(number: int = 1, start: int = 0, **steps: Any) -> dict[str, Any]:
    begin = runs.BEGIN_NS + start
    return {"swap": number, "edition": "mix", "version": 2, "start_ns": begin, "end_ns": begin + 100 * MS, **steps}


def drawn(mechanism: str, *swaps: dict[str, Any], kernel: Any = (), limit: int = 8, **parts: Any) -> timeline.Timeline:
    found = timeline.timeline(log(swaps=list(swaps), **parts), mechanism, kernel, max_swaps=limit)
    assert found is not None
    return found


def test_the_steps_of_a_swap_stand_in_their_order() -> None:
    steps = {"load_ns": 20 * MS, "publish_ns": 4000, "drain_ns": 30 * MS, "flush_ns": 2 * MS, "retire_ns": 10 * MS}
    (strip,) = drawn("invalidate", swap(**steps, unload_ns=25 * MS)).swaps
    assert [(step.name, step.x) for step in strip.steps] == [
        *(("load", 0.0), ("publish", 200.0), ("drain", 350.0), ("flush", 350.0), ("retire", 650.0), ("unload", 750.0)),
    ]
    assert [step.width for step in strip.steps] == [200.0, timeline.STEP_UNITS, 300.0, 20.0, 100.0, 250.0]
    assert "drain 30 ms" in strip.title and strip.label == "Swap 1 to mix version 2, 100 ms"


def test_a_mechanism_that_unloads_first_is_drawn_so() -> None:
    (strip,) = drawn("reload", swap(load_ns=40 * MS, publish_ns=10 * MS, unload_ns=50 * MS)).swaps
    assert [(step.name, step.x) for step in strip.steps] == [("unload", 0.0), ("load", 500.0), ("publish", 900.0)]


def test_a_lane_shows_when_nobody_of_a_kind_completed_a_call() -> None:
    begin = runs.BEGIN_NS
    each = [[begin + at * MS, begin + at * MS + 200_000] for at in range(10)]  # what is usual
    thread = {"kind": "syscall", "issued": 9, "completed": 9, "failed": 0, "gap_floor_ns": 100_000}
    one = {**thread, "gaps": [*each, [begin + 20 * MS, begin + 60 * MS]]}
    two = {**thread, "gaps": [*each, [begin + 40 * MS, begin + 90 * MS]]}
    load = {"started_ns": begin, "ended_ns": begin + 200 * MS, "sub_bits": 4, "threads": [one, two]}
    found = drawn("refcount", swap(), load=load, stats=None)
    (lane,) = found.swaps[0].lanes
    assert (lane.name, lane.path) == ("system calls", "M400 0H600V1H400z")  # both were silent from 40 to 60 ms
    assert lane.title == "system calls: 1 gap, the longest 20 ms"
    assert found.usual == ("system calls 800 us",)
    assert [one.path for one in found.whole.lanes] == ["M0 0H500V1H0z", "M200 0H300V1H200z"]
    silent = {**thread, "gaps": None}
    load["threads"] = [one, silent]
    assert drawn("refcount", swap(), load=load, stats=None).swaps[0].lanes == ()  # one did not tell


def test_the_longest_swaps_are_drawn_on_one_scale_and_the_others_counted() -> None:
    swaps = [{**swap(at, at * 500 * MS), "end_ns": runs.BEGIN_NS + at * 500 * MS + at * 10 * MS} for at in range(1, 8)]
    found = drawn("refcount", *swaps, limit=3)
    assert [strip.label.split(" to ")[0] for strip in found.swaps] == ["Swap 5", "Swap 6", "Swap 7"]
    assert (found.left_out, found.swap_ticks) == (4, ("0 ns", "20 ms", "40 ms", "60 ms", "80 ms"))
    assert [strip.end_x for strip in found.swaps] == [625.0, 750.0, 875.0]


def test_a_swap_that_ended_with_an_error_is_told() -> None:
    found = drawn("refcount", swap(), {"swap": 2, "step": "drain", "error": "ETIMEDOUT"})
    assert found.failed == ("swap 2: drain: ETIMEDOUT",)


def test_lines_of_the_kernel_log_are_marked_and_a_splat_is_never_left_out() -> None:
    lines = [(runs.BEGIN_NS + at * MS // 2, "something") for at in range(1, 100)]
    lines += [(runs.BEGIN_NS + 90 * MS, "BUG: kernel NULL pointer dereference"), (runs.BEGIN_NS + 101 * MS, "later")]
    (strip,) = drawn("refcount", swap(), kernel=lines).swaps
    assert len(strip.marks) == timeline.MAX_MARKS
    assert [(mark.x, mark.text) for mark in strip.marks if mark.splat] == [(900.0, lines[-2][1])]
    assert "later" not in {mark.text for mark in strip.marks}


def test_without_times_there_is_no_timeline() -> None:
    assert timeline.timeline(runlog.read({}), "refcount", (), max_swaps=8) is None


@pytest.mark.parametrize("huge", [2**64 - 1, 0])
def test_times_that_make_no_sense_stay_within_the_picture(huge: int) -> None:
    steps = dict.fromkeys(("load_ns", "publish_ns", "drain_ns", "retire_ns", "flush_ns", "unload_ns"), huge)
    for mechanism in ("refcount", "reload", "unheard-of"):
        for strip in drawn(mechanism, swap(**steps), {**swap(2), "end_ns": 2**64 - 1}).swaps:
            for step in strip.steps:
                assert 0 <= step.x <= timeline.WIDTH and 0 <= step.width <= timeline.WIDTH


def test_the_kernel_logs_stamps() -> None:
    text = "[    1.000001] before\n[    2.000000] lab: marker 7\n[   12.500000][  T12] hs: <b>\nno stamp\n"
    assert dmesg.stamped(text, mark="lab: marker 7") == [(12_500_000_000, "hs: <b>")]
    assert len(dmesg.stamped(text)) == 3 and len(dmesg.stamped(text, limit=1)) == 1
    console = "[     5.735] [   17.214643] hs_core: loading\n"
    assert dmesg.stamped(console) == [(17_214_643_000, "hs_core: loading")]


# --- the page


def test_the_page_says_what_the_run_was(tmp_path: Path) -> None:
    results = [
        runs.put(tmp_path, NAME, Status.PASS, said=runs.raw(swaps=12, gaps=50)),
        runs.put(tmp_path, "x86_64/bookworm/reload/mixed", Status.CRASH, said=None),
        runs.put(tmp_path, "x86_64/bookworm/livepatch/irq@no-nx", Status.SKIP, said=None),
    ]
    head = runs.head(results, more=["aarch64/sid/refcount/irq", "not a cell"])
    tree = lxml.html.document_fromstring(html.render(head, results, tmp_path))
    rows = {row.xpath("th")[0].text: row.text_content() for row in tree.xpath("//table[@class='grid']/tbody/tr")}
    assert list(rows) == ["x86_64/bookworm", "x86_64/bookworm@no-nx", "aarch64/sid"]
    assert "PASS" in rows["x86_64/bookworm"] and "CRASH" in rows["x86_64/bookworm"]
    assert "did not run" in rows["aarch64/sid"] and "SKIP" in rows["x86_64/bookworm@no-nx"]
    ids = set(tree.xpath("//@id"))
    links = tree.xpath("//a/@href")
    assert links and {link.removeprefix("#") for link in links} <= ids
    passed, crashed, skipped = tree.xpath("//section")
    assert "the 8 longest; 4 shorter ones are left out" in passed.text_content()
    assert "BUG: kernel NULL pointer dereference" in crashed.text_content()
    assert f"lab run cell {results[1].id} --seed 7 --swaps 20" in crashed.text_content()
    assert not skipped.xpath(".//svg | .//pre[@aria-label]")
    assert all(svg.xpath("title") for svg in tree.xpath("//svg"))


def test_nothing_is_loaded_and_only_the_pages_own_style_is_let_in(tmp_path: Path) -> None:
    text = page(tmp_path, runs.put(tmp_path, NAME, Status.PASS, said=runs.raw(swaps=3, gaps=20)))
    tree = lxml.html.document_fromstring(text)
    assert not tree.xpath("//script | //img | //link | //iframe | //object | //@src | //@style | //@onclick")
    assert not re.findall(r"(?i)https?:|url\(|@import", text)
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    (policy,) = tree.xpath("//meta[@http-equiv='Content-Security-Policy']/@content")
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}';")


def test_what_a_guest_says_stays_text(tmp_path: Path) -> None:
    said = runs.raw(swaps=2, gaps=5)
    for one in said["swaps"]:
        one["edition"] = HOSTILE
    said["swaps"].append({"swap": 3, "step": HOSTILE, "error": HOSTILE})
    text = page(tmp_path, runs.hostile(tmp_path, said, HOSTILE.replace("\ud800", "")))
    tree = lxml.html.document_fromstring(text)
    assert not tree.xpath("//script | //img | //@onerror")
    assert text.count("&lt;script&gt;") > 10
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202e]", text)
    assert "]0;owned" not in text and "{{ 7*7 }}" in text


def test_what_a_guest_says_at_length_is_cut(tmp_path: Path) -> None:
    said = runs.raw(swaps=2, gaps=5)
    small = len(page(tmp_path, runs.hostile(tmp_path, said, "x")))
    assert len(page(tmp_path, runs.hostile(tmp_path, said, "y" * 50_000))) < small + 90_000


def test_the_page_of_a_large_run_stays_small(tmp_path: Path) -> None:
    """A cell has at most so many bytes, whatever its guest did; 72 of them are a default run."""
    said = runs.raw(swaps=400, gaps=8_000)
    one = runs.put(tmp_path, NAME, Status.PASS, said=said)
    assert len(page(tmp_path, one)) - len(page(tmp_path)) < 72_000


@pytest.mark.parametrize("broken", ["", "{", "[1]", '{"load": 7, "swaps": "x"}', "[" * 100_000])
def test_a_cell_whose_samples_are_broken_is_shown_without_pictures(tmp_path: Path, broken: str) -> None:
    result = runs.put(tmp_path, NAME, Status.PASS, said=runs.raw(swaps=2, gaps=5))
    (tmp_path / "cells" / NAME / "samples.json").write_text(broken)
    text = page(tmp_path, result)
    assert "<svg" not in text and "20 swaps under 110 calls" in text


def test_it_is_in_the_runs_folder_with_the_others(tmp_path: Path) -> None:
    from lab import report

    result = runs.put(tmp_path, NAME, Status.PASS, said=runs.raw(swaps=2, gaps=5))
    (tmp_path / "run.json").write_text(json.dumps(runs.head([result])))
    assert report.missing(tmp_path) == list(report.FILES)
    report.write(tmp_path, runs.head([result]), [result])
    assert report.missing(tmp_path) == []
    assert {path.name for path in tmp_path.iterdir()} == {"cells", "run.json", *report.FILES}
    (tmp_path / "ktap.txt").unlink()
    assert report.missing(tmp_path) == ["ktap.txt"]
    (tmp_path / "run.json").write_text("{}")  # the run went on
    assert report.missing(tmp_path) == list(report.FILES)
