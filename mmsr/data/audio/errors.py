"""What audio that cannot be used raises, and what is told of audio that can."""

from typing import NamedTuple


class AudioError(ValueError):
    """Audio that cannot be used; the message names the source and what is accepted.

    Args:
        message: What is wrong.
        code: The code of `mmsr data check`: `audio-missing`, `audio-empty`, `audio-truncated`,
            `audio-zero-length`, `audio-nan`, `audio-scale`, `audio-too-long`, or `audio-corrupt`.
    """

    def __init__(self, message: str, *, code: str = "audio-corrupt"):
        super().__init__(message)
        self.code = code


class AudioNote(NamedTuple):
    """What is told of a source that is read nevertheless.

    Attributes:
        code: The code of `mmsr data check`.
        message: One line, without the source's name.
    """

    code: str
    message: str
