"""Recordings of any length, read in slices from disk.

    any audio ─► `Audio.blocks` ─► scratch file, 16 kHz mono float32 ─► recording[a:b], `[s]`

The scratch file (230 MB an hour) has no name where the system allows that, so that it is deleted even if the
program is killed.
"""

import os
import tempfile

import numpy as np

from mmsr.data.audio.decoding import Audio
from mmsr.records import SAMPLE_RATE, Progress

_BYTES = 4  # of a sample


class Recording:
    """Samples `[s]` float32 at 16 kHz mono on disk, sliced like an array.

    A context manager, which deletes the scratch file on exit.

    Args:
        source: Path or URL of an audio file that `Audio` reads.
        progress: Called with task, seconds decoded and seconds in all.

    Raises:
        AudioError: The file cannot be read, or is empty.
    """

    rate = SAMPLE_RATE

    def __init__(self, source: str | os.PathLike[str], *, progress: Progress | None = None):
        self.source = os.fspath(source)
        self._file = tempfile.TemporaryFile(prefix="mmsr-recording-")
        self._length = 0
        try:
            total = round(Audio.duration(source)) if progress else 0
            for block in Audio(self.rate).blocks(source):
                self._file.write(block.tobytes())
                self._length += len(block)
                if progress:
                    progress("decoding", min(self._length // self.rate, total), total)
            if progress:
                progress("decoding", total, total)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "Recording":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, part: slice) -> np.ndarray:
        start, stop, step = part.indices(self._length)
        if step != 1:
            raise ValueError(f"step is {step}; accepted: 1")
        samples = np.empty(max(0, stop - start), dtype=np.float32)
        self._file.seek(_BYTES * start)
        self._file.readinto(samples.data)
        return samples

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self._length / self.rate

    def between(self, start: float, end: float) -> np.ndarray:
        """Samples `[s]` between two times in seconds."""
        return self[round(start * self.rate) : round(end * self.rate)]
