# SPDX-License-Identifier: GPL-2.0-or-later
"""The CI templates: valid by the schemas that check-jsonschema brings, and true of the lab's commands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from check_jsonschema import main as check  # type: ignore[attr-defined]
from click.testing import CliRunner

from lab import cli, paths

CI = paths.REPOSITORY / "ci"
SCHEMAS = {"github.yml": ("vendor.github-workflows",), "gitlab.yml": ("vendor.gitlab-ci", "gitlab-ci")}


def verdict(name: str, path: Path) -> int:
    schema, *transform = SCHEMAS[name]
    words = ["--builtin-schema", schema, *(word for one in transform for word in ("--data-transform", one))]
    return CliRunner().invoke(check, [*words, str(path)]).exit_code


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_template_is_valid_and_a_broken_one_is_not(name: str, tmp_path: Path) -> None:
    assert verdict(name, CI / name) == 0
    broken = tmp_path / name
    broken.write_text(
        (CI / name).read_text().replace("runs-on:", "run-on:").replace("interruptible: false", "interruptible: maybe")
    )
    assert verdict(name, broken) == 1


@pytest.mark.parametrize("name", SCHEMAS)
def test_its_commands_are_the_labs(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = (CI / name).read_text()
    commands = [re.split("['#;]| [|]{2} ", one)[0] for one in re.findall(r"\.venv/bin/lab (.*)", text)]
    assert {one.split()[0] for one in commands} == {"run", "image", "gc"}
    for profile in ("smoke", "nightly"):
        for one in commands:
            if one.startswith("run"):
                assert cli.call([*shlex.split(one.replace("$PROFILE", profile)), "--dry-run"]) == 0
            elif one.startswith("image"):
                assert cli.call([*shlex.split(one), "--arch", "riscv"]) == 2  # the words are known, but for that one
                assert "riscv" in capsys.readouterr().err
