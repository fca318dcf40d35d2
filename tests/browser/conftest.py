# SPDX-License-Identifier: GPL-2.0-or-later
"""One browser for all tests of a process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.browser import chromium


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Browser]:
    """A running browser."""
    with chromium.running(tmp_path_factory.mktemp("browser")) as found:
        yield found
