"""A store for the states of frozen encoders, so that each input is encoded once.

    encoder fingerprint + processing + dtype ─► maker ─┐
    content bytes ─► sha256 ───────────────────────────┴─► <root>/<maker>/ab/ab12….safetensors

An entry is addressed by what it was made from, so that a changed weight, setting or file has an entry of its
own. Several programs may read, write and evict in one store at the same time: an entry appears whole, by a
rename, and stays readable after it was evicted, since it is mapped into memory.
"""

import contextlib
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import safetensors
import safetensors.torch
import torch

from mmsr.data.storage import digest, is_url
from mmsr.files import atomic_write, write_file

logger = logging.getLogger(__name__)

Dtype = Literal["float16", "bfloat16", "float32"]
_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
_TOUCHED = 60.0  # seconds within which an entry's use is not recorded again
_ABANDONED = 3600.0  # seconds after which the writer of a half-written file is assumed dead
OLDER = "older"
"""Maker of the entries of earlier releases, which are not read any more."""


class Entry(NamedTuple):
    """One file of a store.

    Attributes:
        path: The file.
        maker: Folder of the encoder and processing that made it.
        bytes: Size.
        used: Time at which it was written or last read, to a minute, in seconds since 1970.
    """

    path: Path
    maker: str
    bytes: int
    used: float


class FeatureStore:
    """Tensors on disk, addressed by what they were made from.

    Args:
        root: Folder of the store.
        dtype: Type in which floating-point tensors are stored. It is part of the maker.

    Raises:
        ValueError: `dtype` is unknown.
    """

    def __init__(self, root: str | os.PathLike[str], *, dtype: Dtype = "float16"):
        if dtype not in _DTYPES:
            raise ValueError(f"dtype is {dtype!r}; accepted: {', '.join(_DTYPES)}")
        self.root = Path(root)
        self.dtype = dtype
        self.hits = 0
        self.misses = 0

    # ------------------------------------------------------------------ entries

    def maker(self, encoder: str, processing: Mapping[str, Any], *, name: str) -> str:
        """16 hex digits of an encoder and its processing, a folder's name; `maker.json` there describes it.

        Args:
            encoder: The encoder's identity, such as its `encoder_fingerprint`.
            processing: All steps before and after the encoder, as JSON values.
            name: Name for people; not part of the digits.
        """
        made_by = {"encoder": encoder, "processing": dict(processing), "dtype": self.dtype}
        description = json.dumps(made_by, sort_keys=True)
        maker = hashlib.sha256(description.encode()).hexdigest()[:16]
        path = self.root / maker / "maker.json"
        if not path.exists():
            write_file(path, json.dumps({"name": name, **made_by}, indent=1).encode())
        return maker

    def key(self, maker: str, content: bytes) -> str:
        """Name of an entry: its maker and 64 hex digits of the content."""
        return f"{maker}/{hashlib.sha256(content).hexdigest()}"

    def get(self, key: str) -> dict[str, torch.Tensor] | None:
        """The entry's tensors, mapped from the file, or None.

        An unreadable entry is logged and counts as missing; the next `put` replaces it.
        """
        path = self.path(key)
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}
            with contextlib.suppress(PermissionError):  # a store may be read-only
                if time.time() - path.stat().st_mtime > _TOUCHED:
                    os.utime(path)  # not every file system keeps access times
        except FileNotFoundError:
            self.misses += 1
            return None
        except (safetensors.SafetensorError, OSError) as error:
            logger.warning("%s: cannot be read and will be made again (%s)", path, error)
            self.misses += 1
            return None
        self.hits += 1
        return tensors

    def put(self, key: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Store tensors, floating-point ones in the store's dtype.

        Returns:
            The tensors as stored.

        Raises:
            ValueError: A finite value is beyond the dtype's range.
        """
        kept = {name: self._as_kept(name, tensor) for name, tensor in tensors.items()}
        with atomic_write(self.path(key)) as half:
            half.write_bytes(safetensors.torch.save(kept))  # save_file has temporary files of its own
        return kept

    def path(self, key: str) -> Path:
        """The file of an entry."""
        maker, content = key.split("/")
        return self.root / maker / content[:2] / f"{content}.safetensors"

    def _as_kept(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.detach().cpu()
        if not tensor.is_floating_point():
            return tensor.clone(memory_format=torch.contiguous_format)
        # a copy: safetensors refuses tensors that share memory, such as two layers of a stack
        kept = tensor.to(_DTYPES[self.dtype], copy=True, memory_format=torch.contiguous_format)
        if not torch.equal(kept.isfinite(), tensor.isfinite()):
            peak = tensor[tensor.isfinite()].abs().max().item()
            raise ValueError(
                f"{name} reaches {peak:g}, beyond {self.dtype}; accepted: dtype bfloat16 or float32"
            )
        return kept

    # ------------------------------------------------------------------ housekeeping

    def entries(self) -> Iterator[Entry]:
        """All entries, in no order."""
        for path in self.root.rglob("*.safetensors"):
            if not _half_written(path):
                with contextlib.suppress(FileNotFoundError):  # evicted meanwhile
                    status = path.stat()
                    parts = path.relative_to(self.root).parts
                    maker = parts[0] if len(parts) == 3 else OLDER
                    yield Entry(path, maker, status.st_size, status.st_mtime)

    def makers(self) -> list[dict[str, Any]]:
        """`maker`, `name`, `dtype`, `entries`, `bytes` and `used` of makers with entries, largest first."""
        found: dict[str, list[Entry]] = {}
        for entry in self.entries():
            found.setdefault(entry.maker, []).append(entry)
        makers = [
            {
                "maker": maker,
                **self._description(maker),
                "entries": len(entries),
                "bytes": sum(entry.bytes for entry in entries),
                "used": max(entry.used for entry in entries),
            }
            for maker, entries in found.items()
        ]
        return sorted(makers, key=lambda maker: -maker["bytes"])

    def _description(self, maker: str) -> dict[str, Any]:
        try:
            described = json.loads((self.root / maker / "maker.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {"name": "made by an earlier release; nothing reads it", "dtype": None}
        return {"name": described["name"], "dtype": described["dtype"]}

    def evict(self, *, to_bytes: int | None = None, older_than: float | None = None) -> tuple[int, int]:
        """Remove the least recently used entries, and half-written files whose writer is dead.

        Args:
            to_bytes: Remove entries until the rest has at most so many bytes.
            older_than: Remove entries that were not used for so many seconds.

        Returns:
            Number of removed entries, and their bytes.
        """
        now = time.time()
        for half in filter(_half_written, self.root.rglob("*")):
            with contextlib.suppress(FileNotFoundError):  # its writer has finished
                if now - half.stat().st_mtime > _ABANDONED:
                    half.unlink()
        entries = sorted(self.entries(), key=lambda entry: entry.used)
        total = sum(entry.bytes for entry in entries)
        removed = freed = 0
        for entry in entries:
            stale = older_than is not None and now - entry.used > older_than
            if not stale and (to_bytes is None or total - freed <= to_bytes):
                break  # the rest was used later
            entry.path.unlink(missing_ok=True)
            removed, freed = removed + 1, freed + entry.bytes
        return removed, freed

    def record(self, name: str) -> None:
        """Append the hits and misses so far to `runs.jsonl`, as one line."""
        line = json.dumps({"time": time.time(), "run": name, "hits": self.hits, "misses": self.misses})
        self.root.mkdir(parents=True, exist_ok=True)
        with open(self.root / "runs.jsonl", "ab", buffering=0) as file:
            file.write(line.encode() + b"\n")

    def runs(self, last: int = 5) -> list[dict[str, Any]]:
        """`time`, `run`, `hits` and `misses` of the last runs, in order."""
        try:
            lines = (self.root / "runs.jsonl").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in lines[-last:]]


def _half_written(path: Path) -> bool:
    return path.name.startswith(".") or path.suffix == ".tmp"  # .tmp: of earlier releases


class StoredFeatures:
    """A frozen encoder with a store: path of an audio file, or text -> states `[n, l, d]`, encoded once.

    Args:
        store: The store of the states.
        encode: Paths or texts of one batch -> the states `[n, l, d]` of each.
        content: Path or text -> bytes that determine the states, such as `file_digest` of a path.
        encoder: The encoder's identity, such as its `encoder_fingerprint`.
        processing: All else that determines the states.
        name: The encoder's name for people.
        batches: Groups inputs into batches whose members do not change each other's states; by default, each
            input is a batch.
    """

    def __init__(
        self,
        store: FeatureStore,
        encode: Callable[[Sequence[str]], Sequence[torch.Tensor]],
        *,
        content: Callable[[str], bytes],
        encoder: str,
        processing: Mapping[str, Any],
        name: str,
        batches: Callable[[Sequence[str]], Iterable[Sequence[str]]] | None = None,
    ):
        self.store = store
        self._encode = encode
        self._content = content
        self._batches = batches or (lambda inputs: ([source] for source in inputs))
        self._maker = store.maker(encoder, processing, name=name)

    def __call__(self, source: str) -> torch.Tensor:
        """The states of a path or text, as stored even the first time, so that all epochs are alike."""
        key = self._key(source)
        entry = self.store.get(key) or self.store.put(key, {"states": self._encode([source])[0]})
        return entry["states"]

    def batches(self, sources: Sequence[str]) -> Iterable[Sequence[str]]:
        """The batches in which `fill` encodes distinct paths or texts."""
        return self._batches(sources)

    def fill(self, sources: Sequence[str]) -> Iterator[int]:
        """Encode the paths or texts that the store lacks; yields how many it has, after each batch."""
        distinct = list(dict.fromkeys(sources))
        missing = [source for source in distinct if self.store.get(self._key(source)) is None]
        done = len(distinct) - len(missing)
        yield done
        for batch in self.batches(missing):
            for source, states in zip(batch, self._encode(batch), strict=True):
                self.store.put(self._key(source), {"states": states})
            done += len(batch)
            yield done

    def _key(self, source: str) -> str:
        return self.store.key(self._maker, self._content(source))


def file_digest(path: str) -> bytes:
    """sha256 of a file or URL, computed again in a process only if the file's size, inode or times change."""
    if is_url(path):
        return _digest(path, ())
    status = os.stat(path)
    return _digest(path, (status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns))


@lru_cache(maxsize=2**17)
def _digest(path: str, version: tuple[int, ...]) -> bytes:
    return digest(path)


def encoder_fingerprint(module: torch.nn.Module) -> str:
    """The 64 hex digits of sha256 over the names, types, shapes and bytes of a module's state dict.

    They do not cover kinds of layers and options, which belong in `processing`.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(content.numpy().data)
    return digest.hexdigest()
