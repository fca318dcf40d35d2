# SPDX-License-Identifier: GPL-2.0-or-later
"""Register dumps out of a console's log."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from lab import registers

DATA = Path(__file__).parent.parent / "data/dmesg"


def read(name: str) -> list[registers.Dump]:
    return registers.read((DATA / name).read_text().splitlines())


def test_an_oops_on_x86_64() -> None:
    (dump,) = read("x86_64-null.log")
    assert (dump.cpu, dump.pid, dump.comm) == (1, 214, "hs-load")
    assert "NULL pointer dereference, address: 0000000000000010" in dump.headline
    assert dump.symbols == {"pc": "hs_calc+0x14/0x40 [hs_ed_add]"}
    assert dump.registers["rsp"] == 0xFFFFB0A0C0437E58 and dump.registers["rbx"] == 0xFFFF9D4F01B3A000
    assert dump.registers["eflags"] == 0x10246
    assert "rip" not in dump.registers, "what the log names is a symbol; only gdb knows where it lies"


def test_an_oops_on_aarch64_in_freed_text() -> None:
    (dump,) = read("aarch64-freed-text.log")
    assert dump.cpu == 0 and dump.comm == "hs-load"
    assert dump.symbols == {"pc": "0xffffa6b2c1d3e000", "x30": "hs_reload_call+0x44/0x88 [hs_reload]"}
    assert dump.registers["sp"] == 0xFFFF800082F4BC90 and dump.registers["cpsr"] == 0x60400005


def test_lines_of_a_console_have_the_hosts_time_before_the_kernels() -> None:
    lines = (DATA / "x86_64-null.log").read_text().splitlines()
    assert registers.read(f"[    12.345] {line}" for line in lines) == read("x86_64-null.log")


def test_registers_of_the_program_that_called_the_kernel_are_not_the_faults() -> None:
    lines = (DATA / "x86_64-null.log").read_text().splitlines()
    at = next(i for i, line in enumerate(lines) if "RIP: 0033" in line)
    more = "[   20.100020] RSP: 002b:00007ffc0 EFLAGS: 00000246 ORIG_RAX: 0000000000000010"
    (dump,) = registers.read([*lines[: at + 1], more, *lines[at + 1 :]])
    assert dump.registers["eflags"] == 0x10246
    cut = [line for line in lines[:at] if "RSP:" not in line]
    (dump,) = registers.read([*cut, more.replace("00007ffc0", "00007ffc00000000"), *lines[at:]])
    assert "rsp" not in dump.registers


def test_a_log_that_ends_before_its_registers_still_tells_the_cpu() -> None:
    lines = (DATA / "x86_64-null.log").read_text().splitlines()
    at = next(i for i, line in enumerate(lines) if "CPU: 1" in line)
    (dump,) = registers.read(lines[: at + 1])
    assert dump.cpu == 1 and dump.headline and not dump.registers and not dump.symbols


def test_a_warning_tells_its_place_before_its_registers() -> None:
    lines = [
        "------------[ cut here ]------------",
        "hotswap mutant: splat",
        "WARNING: CPU: 1 PID: 90 at /k/mutants/splat.c:13 splat_argument.constprop.0+0x4a/0x60 [hs_mut_splat]",
    ]
    (early,) = registers.read(lines)
    assert early.cpu == 1 and not early.registers
    assert early.symbols == {"pc": "splat_argument.constprop.0+0x4a/0x60 [hs_mut_splat]"}
    more = ["CPU: 1 PID: 90 Comm: hs-load Tainted: G", "RSP: 0018:ffffb0a0c0437e58 EFLAGS: 00010246"]
    (late,) = registers.read([*lines, *more])
    assert (late.comm, late.headline, late.registers["rsp"]) == ("hs-load", lines[2], 0xFFFFB0A0C0437E58)


def test_a_warning_of_a_newer_kernel() -> None:
    (dump,) = registers.read(["WARNING: splat.c:13 at splat_argument+0x6c/0xb0 [hs_mut_splat], CPU#1: hs-load/214"])
    assert (dump.cpu, dump.pid, dump.symbols) == (1, 214, {"pc": "splat_argument+0x6c/0xb0 [hs_mut_splat]"})


def test_numbers_of_registers_are_gdbs() -> None:
    head = ["BUG: bad", "CPU: 0 PID: 1 Comm: x Tainted: G"]
    (dump,) = registers.read([*head, "RBP: 0000000000000001 R08: 0000000000000002 R15: 0000000000000003"])
    assert dump.registers == {"rbp": 1, "r8": 2, "r15": 3}
    (dump,) = registers.read([*head, "x29: ffff800082f4bc90 x8 : 0000000000000002 x27: 0000000000000003"])
    assert dump.registers == {"x29": 0xFFFF800082F4BC90, "x8": 2, "x27": 3}


HOSTILE = ("\x1b[2J", "CPU: 0 PID: 1 Comm: x Tainted: G", f"x1: {'f' * 16}", "Call trace:", "BUG: \x1b]0;x\x07")
LINES = st.sampled_from([*(DATA / "interleaved.log").read_text().splitlines(), *HOSTILE])


@given(st.lists(LINES | st.text()))
def test_no_text_is_too_bad_to_read(lines: list[str]) -> None:
    for dump in registers.read(lines):
        assert all(0 <= value < 1 << 64 for value in dump.registers.values())
        assert "\x1b" not in dump.headline + dump.comm
