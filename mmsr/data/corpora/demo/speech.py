r"""The voice of the demo corpus: espeak-ng through ctypes, one forked process per utterance.

Run as a program (`python speech.py`), it reads JSON jobs, one a line, from standard input until that closes
(the arguments of `Espeak.speak`). For each, in order, it writes a line of JSON, then these bytes:

    {"bytes": 70240}\n <int16 samples, mono, 22,050 Hz>      or      {"error": "voice 'fr-fr' ..."}\n

espeak-ng keeps state between utterances: the same sentence twice in a process gives two waveforms. So each
utterance is spoken by a fork of a process that has initialised the library and never spoken. Forks are safe
and quick as long as this process is small and single-threaded, so it imports the standard library alone.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from pathlib import Path
from typing import Any, BinaryIO

SAMPLE_RATE = 22_050

# speak_lib.h
AUDIO_OUTPUT_SYNCHRONOUS = 2
INITIALIZE_DONT_EXIT = 0x8000
POS_CHARACTER = 1
CHARS_UTF8 = 1
RATE, VOLUME, PITCH, RANGE = 1, 2, 3, 4


class _Voice(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("languages", ctypes.c_char_p),
        ("identifier", ctypes.c_char_p),
        ("gender", ctypes.c_ubyte),
        ("age", ctypes.c_ubyte),
        ("variant", ctypes.c_ubyte),
        ("xx1", ctypes.c_ubyte),
        ("score", ctypes.c_int),
        ("spare", ctypes.c_void_p),
    ]


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class Espeak:
    """espeak-ng, initialised to return samples instead of playing them.

    Raises:
        ValueError: The library is not installed, or does not start.
    """

    def __init__(self) -> None:
        try:
            import espeakng_loader
        except ImportError as error:
            raise ValueError("the demo corpus needs espeak-ng: pip install 'mmsr[demo]'") from error
        self._data = Path(espeakng_loader.get_data_path())
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        self._library.espeak_GetCurrentVoice.restype = ctypes.POINTER(_Voice)
        self._library.espeak_Synth.argtypes = [
            ctypes.c_char_p,  # text
            ctypes.c_size_t,  # its bytes, with the closing zero
            ctypes.c_uint,  # start, and what it counts
            ctypes.c_int,
            ctypes.c_uint,  # end: 0 = all
            ctypes.c_uint,  # flags
            ctypes.c_void_p,
            ctypes.c_void_p,
        ]
        rate = self._library.espeak_Initialize(
            AUDIO_OUTPUT_SYNCHRONOUS, 0, os.fsencode(self._data), INITIALIZE_DONT_EXIT
        )
        if rate != SAMPLE_RATE:
            raise ValueError(f"espeak-ng started at {rate} Hz, expected {SAMPLE_RATE}; data: {self._data}")
        # the breath of some voices is random noise, which the library seeds with the time of day
        self._library.espeak_ng_SetRandSeed.argtypes = [ctypes.c_long]
        self._library.espeak_ng_SetRandSeed(1)

    def set_voice(self, voice: str) -> None:
        """Choose a voice such as `en-us` or `en-us+f3` (accent + variant).

        Raises:
            ValueError: espeak-ng does not know it. (The library would keep the previous voice or drop the
                variant, without an error.)
        """
        status = self._library.espeak_SetVoiceByName(voice.encode())
        # "gmw/en-US+f3": family / file of the accent + file of the variant; null before any voice was set
        identifier = self._library.espeak_GetCurrentVoice().contents.identifier or b""
        chosen = identifier.decode().rpartition("/")[2]
        if status != 0 or chosen.lower() != voice.lower():
            accents = sorted(file.name.lower() for file in (self._data / "lang").rglob("*") if file.is_file())
            near = [name for name in accents if name.split("-")[0] == voice.split("-")[0].split("+")[0]]
            variants = sorted(file.name for file in (self._data / "voices" / "!v").iterdir())
            raise ValueError(
                f"voice {voice!r} was not found by espeak-ng; it has {', '.join(near or accents)}, "
                f"each alone or followed by + and a variant: {', '.join(variants)}"
            )

    def speak(self, text: str, *, voice: str, rate: int, pitch: int, pitch_range: int) -> bytes:
        """Speak a text: int16 samples, mono, at 22,050 Hz.

        Raises:
            ValueError: The voice is not found, or nothing was spoken.
        """
        self.set_voice(voice)
        for parameter, value in ((RATE, rate), (VOLUME, 100), (PITCH, pitch), (RANGE, pitch_range)):
            self._library.espeak_SetParameter(parameter, value, 0)
        chunks: list[bytes] = []

        def collect(samples: Any, count: int, _events: Any) -> int:
            if count > 0:
                chunks.append(ctypes.string_at(samples, 2 * count))
            return 0

        callback = _Callback(collect)
        self._library.espeak_SetSynthCallback(callback)
        data = text.encode()
        status = self._library.espeak_Synth(data, len(data) + 1, 0, POS_CHARACTER, 0, CHARS_UTF8, None, None)
        if status != 0 or not chunks:
            raise ValueError(f"espeak-ng spoke nothing for {text!r} in voice {voice!r} (status {status})")
        return b"".join(chunks)


def speak_in_fork(espeak: Espeak, job: dict[str, Any]) -> bytes:
    """Speak a job (arguments of `Espeak.speak`) in a fork of this process, whose state stays as it is."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        try:
            with os.fdopen(write, "wb") as pipe:
                try:
                    pipe.write(b"+" + espeak.speak(**job))
                except Exception as error:
                    pipe.write(b"-" + (str(error) or repr(error)).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    if not answer.startswith(b"+"):
        raise ValueError(answer[1:].decode() or f"espeak-ng ended without an answer to {job}")
    return answer[1:]


def main(jobs: BinaryIO, answers: BinaryIO) -> None:
    """Speak every job; the first error is written and ends the program."""
    try:
        espeak = Espeak()
        for line in jobs.read().splitlines():
            pcm = speak_in_fork(espeak, json.loads(line))
            answers.write(json.dumps({"bytes": len(pcm)}).encode() + b"\n" + pcm)
            answers.flush()
    except ValueError as error:
        answers.write(json.dumps({"error": str(error)}).encode() + b"\n")
        answers.flush()


if __name__ == "__main__":
    main(sys.stdin.buffer, sys.stdout.buffer)
