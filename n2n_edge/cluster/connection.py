"""Connection to Ray: started on this machine, where only this machine reaches it, or a cluster that the user names."""

import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from n2n_edge.closing import ClosedAtExit
from n2n_edge.cluster.losses import why_not
from n2n_edge.errors import UnsuitableEnvironmentError, first_line

__all__ = ["Connection", "check_answers"]

_ANSWER_S = 10.0
"""What a cluster's address gets to accept a connection."""

_CONNECT_S = 90.0
"""What Ray gets to connect to a cluster."""

_STARTS = 3
"""Ray gives its own parts half a minute to start, which a busy machine may exceed."""

_LONGEST_FOLDER = 32
"""Letters of a temporary folder's name above which the sockets within would have names that are too long."""


def check_answers(cluster: str) -> None:
    """Raise UnsuitableEnvironmentError where nothing accepts connections at ``ray://host:port``."""
    address = urlsplit(cluster)
    try:
        socket.create_connection((address.hostname or "", address.port or 0), timeout=_ANSWER_S).close()
    except OSError as error:
        raise UnsuitableEnvironmentError(
            f"‹cluster› {cluster}: nothing answers there ({error.strerror or error}); start Ray's head with its client "
            "server (port 10001), or give another address"
        ) from error


class Connection(ClosedAtExit):
    """Ray, started here with room for some workers or connected to; it is left as it was found.

    `cluster` is ``local``, ``auto`` or ``ray://host:port``. Where this process uses Ray already, that is taken.

    Raises:
        UnsuitableEnvironmentError: Ray isn't installed, doesn't start, or can't be reached.
    """

    def __init__(self, cluster: str, cpus: float, gpus: float) -> None:
        self.cluster = cluster
        self._folder: Path | None = None
        self._environment: dict[str, str | None] = {}
        self._own = False
        try:
            if cluster == "local":
                self._set_environment()
            import ray
        except ImportError as error:
            self._restore()
            raise UnsuitableEnvironmentError(
                f"‹workers› and ‹cluster› need Ray, which can't be imported ({first_line(error)}); run: "
                'pip install "n2n-edge[cluster]", or leave them out'
            ) from error
        if ray.is_initialized():
            self._restore()
            return
        _keep_stdout(ray)
        try:
            if cluster == "local":
                self._start(ray, cpus, gpus)
            else:
                _connect(ray, cluster)
        except BaseException:
            self._restore()
            raise
        self._own = True

    def close(self) -> None:
        """End what was started, or disconnect."""
        if self._own:
            import ray

            self._own = False
            ray.shutdown()
        self._restore()

    def _set_environment(self) -> None:
        """Keep a Ray of this machine to its loopback interface, to this user, and from telling anybody."""
        for name, value in _LOCAL.items():
            self._environment[name] = os.environ.get(name)
            os.environ[name] = value
        if "ray" not in sys.modules:  # which reads these once, so they stay with the process
            os.environ.update({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)})

    def _restore(self) -> None:
        for name, value in self._environment.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        self._environment = {}
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _start(self, ray: Any, cpus: float, gpus: float) -> None:
        parent = tempfile.gettempdir()
        self._folder = Path(tempfile.mkdtemp(prefix="n2n-ray-", dir="/tmp" if len(parent) > _LONGEST_FOLDER else None))
        for start in range(1, _STARTS + 1):
            try:
                with _own_signals(), _loopback(ray):
                    ray.init(
                        address="local",
                        num_cpus=cpus,
                        num_gpus=gpus,
                        include_dashboard=False,
                        log_to_driver=False,
                        logging_level="critical",
                        _temp_dir=str(self._folder),
                    )
            except UnsuitableEnvironmentError:
                raise
            except Exception as error:
                with suppress(Exception):
                    ray.shutdown()
                if start == _STARTS:
                    raise UnsuitableEnvironmentError(
                        f"Ray doesn't start on this machine ({first_line(error)}); try again when it does "
                        "less, or leave ‹workers› out"
                    ) from error
            else:
                return


_LOCAL: Mapping[str, str] = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # what makes Ray take 127.0.0.1, and listen there alone
}


def _connect(ray: Any, cluster: str) -> None:
    """Connect within a bounded time: what Ray waits for can't be interrupted, so it waits in a thread."""
    failed: list[Exception] = []

    def connect() -> None:
        try:
            ray.init(address=cluster, log_to_driver=False, logging_level="critical")
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=connect, daemon=True, name="connecting to Ray")
    thread.start()
    thread.join(_CONNECT_S)
    if thread.is_alive() or failed:
        why = why_not(failed[0]) if failed else f"no answer within {_CONNECT_S:.0f} s"
        way_out = "start Ray on this machine (`ray start`), or give ray://host:port"
        raise UnsuitableEnvironmentError(
            f"‹cluster› {cluster}: can't be connected to ({why.rstrip('.')}); "
            + (way_out if cluster == "auto" else "look whether it runs the same Ray and Python as this machine")
        ) from (failed[0] if failed else None)


@contextmanager
def _loopback(ray: Any) -> Iterator[None]:
    """Start Ray on 127.0.0.1: where it was imported before, it has read its environment already."""
    constants = getattr(getattr(ray, "_private", None), "ray_constants", None)
    before = getattr(constants, "ENABLE_RAY_CLUSTER", None)
    if before:
        constants.ENABLE_RAY_CLUSTER = False  # type: ignore[union-attr]
    try:
        if ray.util.get_node_ip_address() != "127.0.0.1":
            raise UnsuitableEnvironmentError(
                f"Ray {ray.__version__} would listen on every interface of this machine: use another release of it"
            )
        yield
    finally:
        if before:
            constants.ENABLE_RAY_CLUSTER = before  # type: ignore[union-attr]


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep this process's way to end at SIGTERM, which Ray replaces."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _keep_stdout(ray: Any) -> None:
    """Keep Ray from printing what its daemons report on stdout, where documents go; a fault is told in one line."""
    module = getattr(getattr(ray, "_private", None), "worker", None)
    if module is not None and hasattr(module, "listen_error_messages"):
        module.listen_error_messages = _listen_to_nothing


def _listen_to_nothing(*_: object) -> None:
    """Stand for Ray's own listener."""
