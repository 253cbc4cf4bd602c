"""Many audio files at a time: what one of them raises is its own result, and ends nothing.

references ─► threads ─► `read` of each ─► its result, or an `AudioError`, in order

`read` is often an `Audio`: libsndfile, soxr and FFmpeg let other threads run while they work.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from mmsr.data.audio.decoding import Audio, AudioError, AudioSource, source_name
from mmsr.data.storage import StorageError
from mmsr.records import Progress

_T = TypeVar("_T")
_S = TypeVar("_S")
_Source = TypeVar("_Source", bound=AudioSource)
_AHEAD = 32  # results that wait at most


def map_ahead(function: Callable[[_S], _T], items: Iterable[_S], *, ahead: int = _AHEAD) -> Iterator[_T]:
    """A function's results in the order of its items, computed in threads.

    Unlike `Executor.map`, it holds no more than `ahead` results, and takes no more items than that before
    the first is asked for.

    Raises:
        Exception: What the function raised for an item, in its turn.
    """
    waiting: deque[Future[_T]] = deque()
    pool = ThreadPoolExecutor()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) == ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def read_or_error(source: _Source, read: Callable[[_Source], _T]) -> _T | AudioError:
    """What `read` returns for a source of audio, or the error with which it cannot be read."""
    try:
        return read(source)
    except AudioError as error:
        return error
    except StorageError as error:
        accepted = "accepted: a file that can be read"
        return AudioError(f"{error}; {accepted}", code="audio-unreadable")
    except Exception as error:  # of a library, about a file that it was not made for
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return AudioError(
            f"{source_name(source)}: cannot be decoded ({reason}); accepted: a whole audio file"
        )


def read_each(
    references: Sequence[str],
    read: Callable[[str], _T],
    *,
    progress: Progress | None = None,
    task: str = "checking audio",
) -> Iterator[_T | AudioError]:
    """Read audio files in threads; a few results wait to be taken, however many files there are.

    Args:
        references: Paths or URLs.
        read: Reads one of them, such as an `Audio`, or `seconds_of`.
        progress: Called with the task, files done and their number.
        task: Name of the step.

    Yields:
        The result of each file, in order, or the error with which it was left.
    """
    results = map_ahead(lambda reference: read_or_error(reference, read), references)
    for done, result in enumerate(results, start=1):
        yield result
        if progress is not None:
            progress(task, done, len(references))


def seconds_of(source: AudioSource) -> float:
    """Length of a source in seconds.

    Raises:
        AudioError: It cannot be read, or has no samples.
    """
    if length := Audio.duration(source):
        return length
    raise AudioError(
        f"{source_name(source)}: has length zero; accepted: at least one sample", code="audio-zero-length"
    )


def decode_to_end(source: AudioSource) -> None:
    """Decode a source and keep nothing, so that what is damaged anywhere raises its error.

    Raises:
        AudioError: It cannot be decoded to its end.
    """
    for _ in Audio(None).blocks(source):
        pass
