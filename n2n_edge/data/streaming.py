"""Images that are decoded where they are needed, several at a time, and kept in a file under a limit."""

import os
import shutil
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as LateError
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile, gettempdir
from threading import Lock
from typing import IO, Any, overload

import numpy as np
from numpy.typing import NDArray

from n2n_edge.data.pixels import Conversions
from n2n_edge.errors import InputError, UnsuitableEnvironmentError

__all__ = ["Images", "Loading", "Pictures", "Store", "batches_of", "refuse_unreadable", "usual_cache_gb"]

Decoder = Callable[[str, Conversions], NDArray[np.uint8]]
"""Reads one file as an image `(H, W, C)` and notes what it converted; raises InputError."""

Chosen = NDArray[np.integer[Any]] | NDArray[np.bool_]

_CHUNK = 8
"""Images that a thread decodes at a time."""

_AHEAD = 3
"""Batches that are decoded while one is used."""

_LONGEST_WAIT_S = 600.0
_MISSING, _KEPT, _REPLACED = 0, 1, 2
_UNREADABLE_SHARE, _NAMED = 0.01, 3
_DISK_SHARE, _MEMORY_SHARE = 0.5, 2.0


def refuse_unreadable(errors: Sequence[str], images: int, strict: bool) -> None:
    """Raise InputError where more than one per cent of so many images had an error, or any if `strict`."""
    if not errors or (not strict and len(errors) <= _UNREADABLE_SHARE * images):
        return
    more = f"; so are {len(errors):,} of {images:,} images" if len(errors) > 1 else ""
    raise InputError("; ".join(errors[:_NAMED]) + more)


def usual_cache_gb(folder: Path) -> float:
    """Return the limit of a cache in `folder`: half of the free disk, at most twice the machine's memory.

    What is read back from a disk alone, past the memory, comes no faster than it is decoded.
    """
    free = _DISK_SHARE * shutil.disk_usage(folder).free
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return free / 1e9
    return min(free, _MEMORY_SHARE * memory) / 1e9


@dataclass(frozen=True)
class Loading:
    """How images of files are read.

    `workers` threads decode (None: one per core, 0: none, in line); `cache_gb` limits the decoded images that are kept
    in a file (None: see `usual_cache_gb`, 0: none), which lies in `folder`, or is temporary; `strict` refuses the first
    image that can't be read, of which else one per cent is passed over. `on_scan` is told how many files have been
    looked at, and of how many.
    """

    workers: int | None = None
    cache_gb: float | None = None
    strict: bool = False
    folder: Path | None = None
    on_scan: Callable[[int, int], None] | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 0:
            raise InputError(f"‹data_workers› {self.workers}: give 0 (in line) or more")
        if self.cache_gb is not None and not 0 <= self.cache_gb < float("inf"):
            raise InputError(f"‹cache_gb› {self.cache_gb:g}: give 0 (none) or more")

    @property
    def threads(self) -> int:
        """Threads that decode."""
        return (os.cpu_count() or 1) if self.workers is None else self.workers


class _Cache:
    """Decoded images in a file: a byte per image that tells whether it is there, then the images.

    It is read and written by place instead of mapped: mapped pages would count as this process's memory, and a full
    disk would end it. A row is written before its mark, so several processes may share a file, and one that was left
    by a killed process is sound.
    """

    def __init__(self, path: Path | None, rows: int, row_bytes: int, limit_bytes: float) -> None:
        self._rows, self._row_bytes = rows, row_bytes
        self._room = max(0, min(rows, int((limit_bytes - rows) // row_bytes)))
        self._lock = Lock()
        self._file: IO[bytes] | None = None
        self.marks = np.zeros(rows, np.uint8)
        if not self._room:
            return
        if path is None:
            self._file = TemporaryFile(buffering=0)  # noqa: SIM115
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            self._file = path.open("r+b", buffering=0)
        weakref.finalize(self, self._file.close)
        kept = self._read(0, rows)
        if len(kept) == rows:
            self.marks = np.frombuffer(kept, np.uint8).copy()
        else:
            self._write(0, bytes(rows))
        self._room -= int(np.count_nonzero(self.marks))

    def get(self, row: int) -> NDArray[np.uint8] | None:
        """Return the bytes of a row; None where it isn't kept."""
        if self.marks[row] == _MISSING or self._file is None:
            return None
        content = self._read(self._rows + row * self._row_bytes, self._row_bytes)
        return np.frombuffer(content, np.uint8) if len(content) == self._row_bytes else None

    def put(self, row: int, pixels: NDArray[np.uint8], mark: int) -> None:
        """Keep a row while there is room; a full disk ends the keeping, not the run."""
        with self._lock:
            if self._room <= 0 or self._file is None:
                return
            self._room -= 1
        try:
            self._write(self._rows + row * self._row_bytes, pixels.tobytes())
            self._write(row, bytes([mark]))
        except OSError:
            self._room = 0
            return
        self.marks[row] = mark

    def _read(self, start: int, count: int) -> bytes:
        assert self._file is not None
        if hasattr(os, "pread"):
            return os.pread(self._file.fileno(), count, start)
        with self._lock:
            self._file.seek(start)
            return self._file.read(count)

    def _write(self, start: int, content: bytes) -> None:
        assert self._file is not None
        if hasattr(os, "pwrite"):
            written = os.pwrite(self._file.fileno(), content, start)
            if written != len(content):
                raise OSError("short write")
            return
        with self._lock:
            self._file.seek(start)
            self._file.write(content)


class Store:
    """Files of images, read by a `decoder` on demand, in threads, and kept in a cache.

    A file that can't be read is replaced by the nearest of its kind (`kinds` `(N,)`: its class); more than one per
    cent, or any if `loading.strict`, are an error. `fingerprints` `(N, 16)` tell files apart by their bytes, `name`
    what is cached from anything else. A copy in another process shares the cache where that lies in a folder.
    """

    def __init__(
        self,
        paths: Sequence[str],
        kinds: NDArray[np.int64],
        fingerprints: NDArray[np.uint8],
        shape: tuple[int, int, int],
        decoder: Decoder,
        loading: Loading,
        name: str,
    ) -> None:
        channels, height, width = shape
        self.paths, self.kinds, self.fingerprints = paths, kinds, fingerprints
        self.shape, self.loading = (height, width, channels), loading
        self._decoder, self._name = decoder, name
        self.conversions = Conversions()
        self._replaced: dict[str, str] = {}
        self._lock = Lock()
        self._open()

    def _open(self) -> None:
        folder, limit = self.loading.folder, self.loading.cache_gb
        if limit is None:
            limit = usual_cache_gb(_nearest(folder or Path(gettempdir())))
        path = None if folder is None else folder / f"{self._name}.pixels"
        self._cache = _Cache(path, len(self.paths), int(np.prod(self.shape)), limit * 1e9)
        self._pool: ThreadPoolExecutor | None = None

    def __getstate__(self) -> dict[str, object]:
        kept = dict(vars(self))
        for name in ("_lock", "_cache", "_pool"):
            del kept[name]
        kept["loading"] = Loading(
            self.loading.workers,
            self.loading.cache_gb if self.loading.folder is not None else 0.0,
            self.loading.strict,
            self.loading.folder,
        )
        return kept

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state)
        self._lock = Lock()
        self._open()

    @property
    def unreadable(self) -> tuple[str, ...]:
        """The files that were replaced, as far as they have been read."""
        kept = (self.paths[int(row)] for row in np.flatnonzero(self._cache.marks == _REPLACED))
        return tuple(dict.fromkeys([*kept, *self._replaced]))

    def image(self, row: int) -> NDArray[np.uint8]:
        """Return one image `(H, W, C)`.

        Raises:
            InputError: it can't be read, and too many others can't.
        """
        kept = self._cache.get(row)
        if kept is not None:
            return kept.reshape(self.shape)
        noted, mark = Conversions(), _KEPT
        try:
            pixels = self._decoder(self.paths[row], noted)
        except InputError as error:
            self._count(row, error)
            pixels, mark = self._neighbour(row, error), _REPLACED
        with self._lock:
            self.conversions.add(noted)
        self._cache.put(row, pixels, mark)
        return pixels

    def _count(self, row: int, error: InputError) -> None:
        with self._lock:
            self._replaced = {**self._replaced, self.paths[row]: str(error)}
            failed = self._replaced
        refuse_unreadable(list(failed.values()), len(self.paths), self.loading.strict)

    def _neighbour(self, row: int, error: InputError) -> NDArray[np.uint8]:
        for distance in range(1, len(self.paths)):
            for other in (row + distance, row - distance):
                if 0 <= other < len(self.paths) and self.kinds[other] == self.kinds[row]:
                    try:
                        return self._decoder(self.paths[other], Conversions())
                    except InputError:
                        continue
        raise error

    def start(self, rows: NDArray[np.int64]) -> Callable[[], NDArray[np.uint8]]:
        """Begin to read images; what is returned waits for them and gives them `(N, H, W, C)`."""
        images = np.empty((len(rows), *self.shape), np.uint8)

        def read(start: int) -> None:
            for index in range(start, min(start + _CHUNK, len(rows))):
                images[index] = self.image(int(rows[index]))

        starts = range(0, len(rows), _CHUNK)
        if not self.loading.threads:
            return lambda: _all_read(images, map(read, starts))
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.loading.threads, thread_name_prefix="images")
        jobs = [self._pool.submit(read, start) for start in starts]
        return lambda: _all_read(images, map(_waited, jobs))


def _all_read(images: NDArray[np.uint8], reading: Iterable[None]) -> NDArray[np.uint8]:
    deque(reading, maxlen=0)
    return images


def _waited(job: "Future[None]") -> None:
    try:
        job.result(timeout=_LONGEST_WAIT_S)
    except LateError as error:
        raise UnsuitableEnvironmentError(
            f"images weren't read within {_LONGEST_WAIT_S / 60:.0f} min: look at the disk or network they lie on"
        ) from error


def _nearest(folder: Path) -> Path:
    """Return the folder itself, or what it is going to lie in."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())


class Pictures:
    """Images `(N, H, W, C)` as uint8 in files, like an array.

    Indexing by numbers or a mask decodes these, a slice is a view of them, and `at` is one by numbers.
    """

    def __init__(self, store: Store, rows: NDArray[np.int64] | None = None) -> None:
        self.store = store
        self.rows: NDArray[np.int64] = np.arange(len(store.paths)) if rows is None else rows

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Number of images, height, width, channels."""
        return (len(self.rows), *self.store.shape)

    @property
    def fingerprints(self) -> NDArray[np.uint8]:
        """What tells the files apart, `(N, 16)`."""
        return self.store.fingerprints[self.rows]

    @overload
    def __getitem__(self, chosen: slice) -> "Pictures": ...
    @overload
    def __getitem__(self, chosen: int | Chosen) -> NDArray[np.uint8]: ...
    def __getitem__(self, chosen: slice | int | Chosen) -> "NDArray[np.uint8] | Pictures":
        if isinstance(chosen, slice):
            return Pictures(self.store, self.rows[chosen])
        rows = self.rows[chosen]
        return self.store.start(rows)() if isinstance(chosen, np.ndarray) else self.store.image(int(rows))

    def __array__(self, dtype: object = None, copy: bool | None = None) -> NDArray[np.uint8]:
        return self.store.start(self.rows)()

    def at(self, chosen: Chosen) -> "Pictures":
        """Return the chosen images, not yet decoded."""
        return Pictures(self.store, self.rows[chosen])


Images = NDArray[np.uint8] | Pictures


def batches_of(images: Images, chosen: Iterable[NDArray[np.integer[Any]]]) -> Iterator[NDArray[np.uint8]]:
    """Give the images of one batch after the other; while one is used those after it are decoded."""
    if not isinstance(images, Pictures):
        for each in chosen:
            yield np.ascontiguousarray(images[each])
        return
    waiting: deque[Callable[[], NDArray[np.uint8]]] = deque()
    for each in chosen:
        waiting.append(images.store.start(images.rows[each]))
        if len(waiting) > (_AHEAD if images.store.loading.threads else 0):
            yield waiting.popleft()()
    while waiting:
        yield waiting.popleft()()
