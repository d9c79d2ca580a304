"""Server of Python processes that have ONNX Runtime (and more) imported already, in place of interpreters started anew.

A worker spends nearly all of its processor time on imports, and a comparison starts two dozen. `Forks.argv` turns a
command that begins with this interpreter into one of a small client: it hands its streams, folder and environment to
the server, whose fork runs the program. The client ends as the program did; when the client is killed, the program is.
"""

import contextlib
import gc
import importlib
import marshal
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

__all__ = ["Forks", "running_forks"]

CLIENT = """
import _socket, marshal, os, sys
from _struct import pack
message = marshal.dumps((sys.argv[2:], os.getcwd(), dict(os.environ)))
server = _socket.socket(_socket.AF_UNIX)
server.connect(sys.argv[1])
server.sendmsg([len(message).to_bytes(4, "big")], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, pack("3i", 0, 1, 2))])
server.sendall(message)
for stream in (0, 1, 2):
    os.close(stream)
answer = server.recv(4)
status = int.from_bytes(answer, "big") if answer else 9
if os.WIFSIGNALED(status):
    import resource
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.kill(os.getpid(), os.WTERMSIG(status))
os._exit(os.WEXITSTATUS(status))
"""


class Forks:
    """A server that is running."""

    def __init__(self, address: Path | None) -> None:
        self.address = address

    def argv(self, command: Sequence[str]) -> list[str]:
        """Return what to start instead of a command; one of another program stays as it is."""
        if self.address is None or not command or command[0] != sys.executable:
            return list(command)
        return [sys.executable, "-I", "-S", "-c", CLIENT, str(self.address), *command[1:]]


@contextlib.contextmanager
def running_forks(*modules: str) -> Iterator[Forks]:
    """Give a server, where the system has process descriptors; it ends with the block, and with this process.

    It imports `modules` before it forks, beside ONNX Runtime.
    """
    if not hasattr(os, "pidfd_open"):
        yield Forks(None)
        return
    with tempfile.TemporaryDirectory() as folder:
        address = Path(folder) / "forks"
        command = [sys.executable, "-P", __file__, str(address), *modules]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/") as process:
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                assert process.stdout.readline() == b"ready\n"
                yield Forks(address)
            finally:
                process.stdin.close()


def _serve(address: str) -> list[str]:
    """Answer clients until stdin ends; return in the fork for a client, with what it is to run."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(address)
    listening.listen(64)
    clients: dict[int, socket.socket] = {}  # by the program's process id
    with selectors.DefaultSelector() as selector:
        selector.register(sys.stdin.fileno(), selectors.EVENT_READ, "owner")
        selector.register(listening, selectors.EVENT_READ, "listening")
        print("ready", flush=True)
        while True:
            for key, _ in selector.select():
                if key.data == "owner":
                    for pid in clients:
                        os.kill(pid, signal.SIGKILL)
                    sys.exit(0)
                if key.data == "listening":
                    client, _ = listening.accept()
                    given = _received(client)
                    if given is None:
                        client.close()
                        continue
                    streams, argv, folder, environment = given
                    pid = os.fork()
                    if pid == 0:
                        for other in (client, listening, *clients.values()):
                            other.close()
                        _become(streams, folder, environment)
                        return argv
                    for stream in streams:
                        os.close(stream)
                    clients[pid] = client
                    selector.register(client, selectors.EVENT_READ, pid)
                    selector.register(os.pidfd_open(pid), selectors.EVENT_READ, pid)
                elif isinstance(key.fileobj, int):  # the program has ended
                    os.close(selector.unregister(key.fileobj).fd)
                    status, client = os.waitpid(key.data, 0)[1], clients.pop(key.data)
                    if client in selector.get_map():
                        selector.unregister(client)
                    with contextlib.suppress(OSError):
                        client.sendall(status.to_bytes(4, "big"))
                    client.close()
                elif key.data in clients:  # the client has been killed; its program may have ended just now
                    selector.unregister(key.fileobj)
                    os.kill(key.data, signal.SIGKILL)


def _received(client: socket.socket) -> tuple[list[int], list[str], str, dict[str, str]] | None:
    size, streams, _, _ = socket.recv_fds(client, 4, 3)
    length, message = int.from_bytes(size, "big"), b""
    while len(message) < length:
        part = client.recv(length - len(message))
        if not part:
            for stream in streams:
                os.close(stream)
            return None
        message += part
    return (streams, *marshal.loads(message)) if message else None


def _become(streams: Sequence[int], folder: str, environment: dict[str, str]) -> None:
    os.setsid()
    for place, stream in enumerate(streams):
        os.dup2(stream, place)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)


def _run(argv: list[str]) -> None:
    """Run what an interpreter would with these arguments."""
    safe_path = False
    while argv and argv[0] in ("-P", "-u"):
        safe_path |= argv.pop(0) == "-P"
    if argv[0] in ("-c", "-m") and not safe_path:
        sys.path.insert(0, str(Path.cwd()))
    if argv[0] == "-c":
        sys.argv = ["-c", *argv[2:]]
        exec(compile(argv[1], "<string>", "exec"), {"__name__": "__main__", "__builtins__": __builtins__})
    elif argv[0] == "-m":
        sys.argv = argv[1:]
        runpy.run_module(argv[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = argv
        runpy.run_path(argv[0], run_name="__main__")


if __name__ == "__main__":
    import numpy  # noqa: F401
    import onnxruntime  # noqa: F401

    for module in sys.argv[2:]:
        importlib.import_module(module)
    gc.freeze()
    arguments, code = _serve(sys.argv[1]), 0
    try:
        _run(arguments)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    os._exit(code)  # the runtime's own thread, which an orderly end waits for, isn't there after a fork
