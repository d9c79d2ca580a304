"""Target over the system's own ``ssh``: its configuration, keys, agents and jump hosts are the user's.

The worker is handed to ``python3`` on the board through the connection and never stored there; models lie in a folder
of their own, once per content, which the holder removes when the connection ends.
"""

import os
import re
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self
from urllib.parse import parse_qs, unquote, urlsplit

from n2n_edge.errors import InputError, N2NError, UnsuitableEnvironmentError
from n2n_edge.measure.launch import Launch, worker_archive, worker_arguments
from n2n_edge.measure.measurement import ConnectionLostError, MeasurementError
from n2n_edge.measure.messages import one_line
from n2n_edge.measure.target import HostTarget, Target

__all__ = ["SshAddress", "SshTarget", "open_target"]

OPTIONS = (
    "BatchMode=yes",  # a password can't be asked for: many connections are made, and none may wait for ever
    "ConnectTimeout=15",
    "ServerAliveInterval=5",
    "ServerAliveCountMax=3",
    "ClearAllForwardings=yes",  # a port can be forwarded by one connection only
    "LogLevel=ERROR",
)
HEARTBEAT_S, SILENCE_S = 10.0, 60.0
COMMAND_VARIABLE = "N2N_EDGE_SSH"
"""Environment variable that replaces the command ``ssh``, such as ``ssh -F my-config``."""

FORM = "ssh://[user@]host[:port][/folder][?python=/path/of/python3]"


@dataclass(frozen=True)
class SshAddress:
    """Where a board is, as ``ssh://[user@]host[:port][/folder][?python=PATH]`` says.

    `folder` is where models are put (the board's temporary folder if empty), `python` the interpreter that has
    onnxruntime.
    """

    destination: str
    port: int | None
    folder: str
    python: str

    @classmethod
    def parse(cls, url: str) -> Self:
        """Read an address.

        Raises:
            InputError: not of this form, or a host or user that ssh would take for an option.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise InputError(f"{url}: {error}; write it as {FORM}") from error
        host, user = unquote(parts.hostname or ""), unquote(parts.username or "")
        if parts.scheme != "ssh" or not host or parts.fragment:
            raise InputError(f"{url}: not the address of a board; write it as {FORM}")
        if parts.password is not None:
            raise InputError(f"{url.replace(parts.password, '***')}: no passwords here; use a key (ssh-copy-id)")
        for word, what in ((host, "host"), (user, "user")):
            if word.startswith("-") or not re.fullmatch(r"[\w.%:@+-]*", word):
                raise InputError(f"{url}: {what} '{word}' can't be a name; write the address as {FORM}")
        query = parse_qs(parts.query, keep_blank_values=True)
        unknown = sorted(set(query) - {"python"})
        if unknown:
            raise InputError(f"{url}: unknown part '{unknown[0]}'; write it as {FORM}")
        folder, python = unquote(parts.path).rstrip("/"), query.get("python", ["python3"])[-1]
        if any(ord(letter) < 32 for letter in folder + python) or not python or python.startswith("-"):
            raise InputError(f"{url}: folder or python can't be a path; write the address as {FORM}")
        return cls(f"{user}@{host}" if user else host, port, folder, python)


class SshTarget(Target):
    """A board over ssh. Models and workers end with the connection.

    >>> n2n_edge.SshTarget("ssh://pi@board").name  # n2n_edge.bench(..., target=...)
    'ssh://pi@board'
    """

    def __init__(self, url: str, *, limit_bytes: int | None = None) -> None:
        super().__init__(limit_bytes)
        self.name = url
        self.address = SshAddress.parse(url)
        self._ssh = shlex.split(os.environ.get(COMMAND_VARIABLE, "")) or ["ssh"]
        if shutil.which(self._ssh[0]) is None:
            raise UnsuitableEnvironmentError(
                f"{url}: there is no '{self._ssh[0]}' command here; install it (Debian: apt install openssh-client)"
            )

    def launch(self, arguments: Sequence[str], prefix: Sequence[str] = ()) -> Launch:
        address = self.address
        remote = worker_arguments([*arguments, "--silence", str(SILENCE_S)])
        # a shell that stays reports a death by signal as 128 + signal, of which ssh itself would only say 255
        line = f"{shlex.join(prefix)} {_quoted(address.python)} {shlex.join(remote)}; exit $?"
        reporting = ["sh", "-c", line]
        port = ["-p", str(address.port)] if address.port is not None else []
        options = [word for option in OPTIONS for word in ("-o", option)]
        return Launch(
            [*self._ssh, "-T", "-x", *options, *port, "--", address.destination, shlex.join(reporting)],
            preamble=worker_archive(),
            heartbeat_s=HEARTBEAT_S,
            explain=self._explain,
            speaker="the board",
        )

    def holder_arguments(self) -> tuple[str, ...]:
        return ("--folder", self.address.folder) if self.address.folder else ()

    def _explain(self, code: int, stderr: str) -> N2NError | None:
        """Say what the end of an ssh process means: 255 is ssh's own, 127 the shell's word for "no such command"."""
        last = one_line(stderr.splitlines()[-1]) if stderr else ""
        python = self.address.python
        if code == 255:
            return ConnectionLostError(f"{self.name}: {_connection_words(last)}")
        if code in (126, 127):
            return MeasurementError(
                f"{self.name}: no '{python}' there ({last or f'exit code {code}'}); install Python (apt install "
                "python3), or name another interpreter with ?python=PATH"
            )
        if code == 0:  # the worker ends so when its stdin does
            return ConnectionLostError(f"{self.name}: the connection ended")
        return None


def _quoted(path: str) -> str:
    """Quote a path for the far shell, but for a leading ``~/``, which stands for the home folder there."""
    return f'"$HOME"/{shlex.quote(path[2:])}' if path.startswith("~/") else shlex.quote(path)


def open_target(name: str, limit_bytes: int | None = None) -> Target:
    """Return the target that ``host`` or an ``ssh://`` address names; `limit_bytes` limits the memory of its workers.

    Raises:
        InputError: neither of them.
        UnsuitableEnvironmentError: there is no ssh here.
    """
    if name == "host":
        return HostTarget(limit_bytes=limit_bytes)
    if name.startswith("ssh:"):
        return SshTarget(name, limit_bytes=limit_bytes)
    raise InputError(f"‹target› {name}: no such target; give host, host-limited, or {FORM}")


def _connection_words(last: str) -> str:
    """Return what went wrong with a connection, and what to do about it."""
    if "Permission denied" in last or "Too many authentication failures" in last:
        return f"the board doesn't accept your key ({last}); try `ssh-copy-id`, or name the key in ~/.ssh/config"
    if "Host key verification failed" in last or "HOST IDENTIFICATION" in last:
        return f"its host key isn't known ({last}); connect once with plain ssh and check the key"
    if "Could not resolve" in last:
        return f"no such host ({last}); check the name, or add it to ~/.ssh/config"
    return f"no connection, or it was lost ({last or 'ssh gave no reason'}); check the board and its network"
