"""A real OpenSSH server on loopback, with keys and a port of its own."""

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psutil

SSHD = shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
MISSING = "no sshd here (Debian: apt install openssh-server)"


@dataclass
class Server:
    """A running server. `ssh` is the command that knows its keys; `home` the folder that its sessions use as TMPDIR."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]

    @property
    def ssh(self) -> str:
        return f"ssh -F {shlex.quote(str(self.folder / 'ssh_config'))}"

    @property
    def home(self) -> Path:
        return self.folder / "board"

    def url(self, folder: str = "", python: str = sys.executable, host: str = "127.0.0.1") -> str:
        return f"ssh://{host}:{self.port}{quote(folder)}?python={quote(python)}"

    def left_behind(self, within_s: float = 20.0) -> list[str]:
        """Return what sessions have left in the temporary folder, once there has been time to clear it up."""
        deadline = time.monotonic() + within_s
        while (found := sorted(path.name for path in self.home.iterdir())) and time.monotonic() < deadline:
            time.sleep(0.1)
        return found

    def sessions(self) -> list[psutil.Process]:
        """Return the server's processes for connections."""
        return psutil.Process(self.process.pid).children()

    def cut(self) -> None:
        """Kill the connections that are open, as a server that falls over does; new ones are accepted."""
        for child in self.sessions():
            below: list[psutil.Process] = []
            with suppress(psutil.NoSuchProcess):  # any of them may end by itself meanwhile
                below = child.children(recursive=True)
            for process in (*below, child):
                with suppress(psutil.NoSuchProcess):
                    if "sshd" in process.name():
                        process.kill()

    def stop(self) -> None:
        """Kill the server and its connections; none is accepted meanwhile."""
        self.process.send_signal(signal.SIGSTOP)
        self.cut()
        self.process.kill()
        self.process.wait()


@contextmanager
def running_server(folder: Path) -> Iterator[Server]:
    """Start a server that accepts one key, and stop it at the end."""
    assert SSHD is not None
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "board").mkdir()
    for name in ("host_key", "user_key", "wrong_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    shutil.copy(folder / "user_key.pub", folder / "authorized_keys")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    (folder / "sshd_config").write_text(
        f"""
Port {port}
ListenAddress 127.0.0.1
HostKey "{folder}/host_key"
AuthorizedKeysFile "{folder}/authorized_keys"
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
MaxStartups 100
SetEnv "TMPDIR={folder}/board"
"""
    )
    (folder / "ssh_config").write_text(
        f"""
Host *
  IdentityFile "{folder}/user_key"
  IdentitiesOnly yes
  StrictHostKeyChecking no
  UserKnownHostsFile "{folder}/known_hosts"
"""
    )
    log = (folder / "sshd.log").open("wb")
    process = subprocess.Popen([SSHD, "-D", "-e", "-f", folder / "sshd_config"], stderr=log)
    server = Server(folder, port, process)
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError((folder / "sshd.log").read_text()) from None
                time.sleep(0.05)
        yield server
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait()
        log.close()
