# SPDX-License-Identifier: GPL-2.0-or-later
"""Fetch Debian packages of any suite and architecture, and unpack them into a folder.

apt solves, downloads and verifies with a configuration of its own, so neither this host's package
state nor root is touched; each package is unpacked as soon as apt has verified it, while the next
ones are still on their way. Nothing of a package is run.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from lab import proc
from lab.deadline import Deadline
from lab.errors import HostError, ImageError

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
FETCH_S = 1800.0  # a slow mirror is no error; one that says nothing for TIMEOUT_S is
TIMEOUT_S = 30
MERGED = ("bin", "sbin", "lib", "lib64")  # folders that are links into /usr


@dataclass(slots=True)
class Apt:
    """A private apt: its lists, its cache and its idea of what is installed (nothing) lie in `folder`."""

    folder: Path
    suite: str
    debian_arch: str
    mirror: str
    check_valid_until: bool
    log_file: Path
    env: dict[str, str] = field(default_factory=dict)

    @property
    def archives(self) -> Path:
        """Where the verified package files appear."""
        return self.folder / "archives"

    def prepare(self) -> None:
        """Write the configuration."""
        for name in ("lists/partial", "archives/partial", "etc/apt.conf.d", "etc/preferences.d", "etc/trusted.gpg.d"):
            (self.folder / name).mkdir(parents=True)
        if not KEYRING.exists():
            raise HostError(f"{KEYRING} is missing", hint="install debian-archive-keyring, or run: make setup")
        for key in (KEYRING, *Path("/etc/apt/trusted.gpg.d").glob("*")):
            (self.folder / "etc/trusted.gpg.d" / key.name).symlink_to(key)
        (self.folder / "status").touch()
        (self.folder / "sources.list").write_text(f"deb {self.mirror} {self.suite} main\n")
        settings = {
            "Dir": self.folder,
            "Dir::Etc": self.folder / "etc",
            "Dir::Etc::sourcelist": self.folder / "sources.list",
            "Dir::State": self.folder,
            "Dir::State::status": self.folder / "status",
            "Dir::Cache": self.folder,
            "APT::Architecture": self.debian_arch,
            "APT::Architectures": self.debian_arch,
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": "root",  # whoever we are: the folder is ours
            "APT::Update::Error-Mode": "any",
            "Acquire::Languages": "none",
            "Acquire::Retries": 2,
            "Acquire::http::Timeout": TIMEOUT_S,
            "Acquire::https::Timeout": TIMEOUT_S,
            "Acquire::Check-Valid-Until": "true" if self.check_valid_until else "false",
        }
        ours = "".join(f'{key} "{value}";\n' for key, value in settings.items())
        (self.folder / "apt.conf").write_text(host_proxies() + ours)
        self.env = {"APT_CONFIG": str(self.folder / "apt.conf"), "LC_ALL": "C"}

    def update(self) -> None:
        """Fetch and verify the package lists."""
        self._run("update")

    def download(self, names: Sequence[str]) -> None:
        """Download and verify packages and what they depend on."""
        self._run("install", "--yes", "--download-only", *names)

    def _run(self, *words: str) -> None:
        try:
            deadline = Deadline.after(FETCH_S)
            proc.run(["apt-get", "--quiet", *words], deadline=deadline, env=self.env, log_file=self.log_file)
        except proc.CommandFailed as e:
            raise ImageError(
                f"cannot get {self.suite}'s packages for {self.debian_arch}: {decisive(e.output)}",
                hint=f"is {self.mirror} reachable? LAB_MIRROR=http://... sets another mirror",
            ) from e


def host_proxies() -> str:
    """This host's apt settings on how to reach the network, as configuration lines."""
    dump = proc.run(["apt-config", "dump"], check=False).stdout
    wanted = re.compile(r"Acquire::https?::.*(Proxy|CaInfo|CaPath|Verify)", re.IGNORECASE)
    return "".join(f"{line}\n" for line in dump.splitlines() if wanted.match(line))


def decisive(output: str) -> str:
    """The line of apt's output that says why it failed."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    for pattern in (r"No space left|enough free space", r"^E: (?!Failed to fetch|Some index)", r"^[EW]: ", r"^Err"):
        for line in lines:
            if re.search(pattern, line):
                return line.removeprefix("E: ").removeprefix("W: ")[:300]
    return lines[-1][:300] if lines else "no output"


@contextmanager
def unpacked(archives: Path, root: Path, *, exclude: Sequence[str]) -> Iterator[None]:
    """While the body downloads into `archives`, unpack what appears there; at the end all is unpacked.

    When the body raises, what is not yet begun is dropped.
    """
    for name in MERGED:
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    begun: dict[Path, Future[None]] = {}
    ended = threading.Event()

    def watch(pool: ThreadPoolExecutor) -> None:
        while True:
            last = ended.is_set()
            for path in archives.glob("*.deb"):
                if path not in begun:
                    begun[path] = pool.submit(unpack, path, root, exclude=exclude)
            if last:
                return
            ended.wait(0.05)

    with ThreadPoolExecutor(min(4, proc.cores())) as pool:
        watcher = threading.Thread(target=watch, args=(pool,), daemon=True)
        watcher.start()
        try:
            yield
        except BaseException:
            ended.set()
            watcher.join()
            pool.shutdown(cancel_futures=True)
            raise
        ended.set()
        watcher.join()
    for future in begun.values():
        future.result()


def unpack(package: Path, root: Path, *, exclude: Sequence[str]) -> None:
    """Unpack one package file into `root`, following the links of the merged /usr."""
    tar = ["tar", "-x", "-C", str(root), "--keep-directory-symlink", "--preserve-permissions"]
    tar += ["--numeric-owner"] if os.getuid() == 0 else ["--no-same-owner"]
    tar += [f"--exclude={pattern}" for pattern in exclude]
    pipe = f"{shlex.join(['dpkg-deb', '--fsys-tarfile', str(package)])} | {shlex.join(tar)}"
    proc.run(["bash", "-o", "pipefail", "-c", pipe], env={"LC_ALL": "C"})


def take_versions(archives: Path) -> dict[str, str]:
    """Name and version of each package file; the files are removed."""
    packages = {}
    for path in sorted(archives.glob("*.deb")):
        name, version, _ = path.name.split("_", 2)
        packages[name] = version.replace("%3a", ":")
    shutil.rmtree(archives)
    return packages


def host_mirror() -> str:
    """The Debian mirror to use: LAB_MIRROR, else the one this host uses; ImageError when it uses none."""
    if mirror := os.environ.get("LAB_MIRROR"):
        return mirror
    form = "$(ORIGIN)|$(RELEASE)|$(REPO_URI)"
    asked = proc.run(["apt-get", "indextargets", "--format", form, "Identifier: Packages"], check=False)
    if (mirror := choose_mirror(asked.stdout, host_id())) is None:
        raise ImageError("this host has no Debian mirror configured", hint="set one: LAB_MIRROR=http://HOST/debian")
    return mirror


def choose_mirror(targets: str, host: str) -> str | None:
    """From lines ORIGIN|RELEASE|URI, the first Debian archive that has whole releases.

    The origin is unknown where the lists were removed (container images do): then a Debian host's word counts.
    """
    for line in targets.splitlines():
        origin, _, rest = line.partition("|")
        release, _, uri = rest.partition("|")
        known = origin == "Debian" or (origin in ("", "$(ORIGIN)") and host == "debian" and "/debian/" in f"{uri}/")
        if known and "-" not in release and uri.startswith(("http://", "https://", "file:/")):
            return uri
    return None


def host_id() -> str:
    """ID= of this host's os-release, e.g. `debian`; empty when unknown."""
    try:
        lines = Path("/etc/os-release").read_text().splitlines()
    except OSError:
        return ""
    return next((line[3:].strip('"') for line in lines if line.startswith("ID=")), "")
