"""Images that are decoded where they are needed, several at a time, and kept in a file under a limit."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as LateError
from threading import Lock
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from n2n_edge.data.loading import PIXELS, Loading, refuse_unreadable
from n2n_edge.data.pixel_cache import KEPT, REPLACED, PixelCache
from n2n_edge.data.pixels import Conversions
from n2n_edge.errors import InputError, UnsuitableEnvironmentError

__all__ = ["Images", "Pictures", "Store", "batches_of", "join_pictures"]

Decoder = Callable[[str, Conversions], NDArray[np.uint8]]
"""Reads one file as an image `(H, W, C)` and notes what it converted; raises InputError."""

Chosen = NDArray[np.integer[Any]] | NDArray[np.bool_]

_CHUNK = 8
"""Images that a thread decodes at a time."""

_AHEAD = 3
"""Batches that are decoded while one is used."""

_LONGEST_WAIT_S = 600.0


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

    def joined(self, others: "Sequence[Store]", kinds: NDArray[np.int64]) -> "Store":
        """Return a store of its files and those of others, of these kinds."""
        paths = [path for each in (self, *others) for path in each.paths]
        prints = np.concatenate([each.fingerprints for each in (self, *others)])
        height, width, channels = self.shape
        name = hashlib.sha256("".join(each._name for each in (self, *others)).encode()).hexdigest()[:16]
        return Store(paths, kinds, prints, (channels, height, width), self._decoder, self.loading, name)

    def _open(self) -> None:
        folder = self.loading.folder
        path = None if folder is None else folder / f"{self._name}{PIXELS}"
        self._cache = PixelCache(path, len(self.paths), int(np.prod(self.shape)), self.loading.cache_bytes)
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
    def cache_bytes(self) -> int:
        """What the decoded images that are kept may take of the disk."""
        return self._cache.bytes

    @property
    def waiting_bytes(self) -> int:
        """What one image takes of the memory, decoded ahead of the batch that is used."""
        return int(np.prod(self.shape)) * ((_AHEAD + 1) if self.loading.threads else 1)

    @property
    def unreadable(self) -> tuple[str, ...]:
        """The files that were replaced, as far as they have been read."""
        kept = (self.paths[int(row)] for row in np.flatnonzero(self._cache.marks == REPLACED))
        return tuple(dict.fromkeys([*kept, *self._replaced]))

    def image(self, row: int) -> NDArray[np.uint8]:
        """Return one image `(H, W, C)`.

        Raises:
            InputError: it can't be read, and too many others can't.
        """
        kept = self._cache.get(row)
        if kept is not None:
            return kept.reshape(self.shape)
        noted, mark = Conversions(), KEPT
        try:
            pixels = self._decoder(self.paths[row], noted)
        except InputError as error:
            self._count(row, error)
            pixels, mark = self._neighbour(row, error), REPLACED
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

    def held(self, chosen: Chosen) -> "Pictures":
        """Return the same pictures with the chosen ones decoded and no files behind: others can't be had any more.

        So they can be sent to a machine that doesn't have the folder.
        """
        rows = np.unique(self.rows[chosen])
        return Pictures(_Held(self.store, rows), self.rows)


class _Held(Store):
    """Images of a store that were decoded, kept in memory without their files."""

    def __init__(self, store: Store, rows: NDArray[np.int64]) -> None:
        self.shape, self.loading = store.shape, Loading(0, 0.0, store.loading.strict)
        self.paths, self.kinds, self.fingerprints = (), store.kinds, store.fingerprints
        self.conversions = store.conversions
        self._rows = rows
        self._pixels: NDArray[np.uint8] = store.start(rows)()

    def __getstate__(self) -> dict[str, object]:
        return vars(self)

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state)

    @property
    def cache_bytes(self) -> int:
        """Nothing: there is no cache."""
        return 0

    @property
    def unreadable(self) -> tuple[str, ...]:
        """Nothing: there are no files."""
        return ()

    def image(self, row: int) -> NDArray[np.uint8]:
        """Return one image `(H, W, C)`; raises InputError for one that isn't held."""
        (image,) = self.start(np.array([row]))()
        return np.asarray(image)

    def start(self, rows: NDArray[np.int64]) -> Callable[[], NDArray[np.uint8]]:
        """Return what gives images `(N, H, W, C)`; raises InputError for one that isn't held."""
        places = np.searchsorted(self._rows, rows).clip(max=len(self._rows) - 1)
        if not np.array_equal(self._rows[places], rows):
            raise InputError("an image that wasn't drawn for this search is asked for away from its folder")
        return lambda: self._pixels[places]


Images = NDArray[np.uint8] | Pictures


def join_pictures(parts: Sequence[Images]) -> Pictures:
    """Return the pictures of several stores, which read their files alike, as those of one."""
    pictures = [part for part in parts if isinstance(part, Pictures)]
    stores = {id(part.store): part.store for part in pictures}
    starts, start = dict[int, int](), 0
    for key, store in stores.items():
        starts[key] = start
        start += len(store.paths)
    first, *others = stores.values()
    kinds = [first.kinds, *(np.full(len(each.paths), -1 - place) for place, each in enumerate(others))]
    joined = first.joined([*others], np.concatenate(kinds))
    return Pictures(joined, np.concatenate([part.rows + starts[id(part.store)] for part in pictures]))


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
