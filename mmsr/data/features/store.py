"""A store for the states of frozen encoders, so that each input is encoded once.

    encoder fingerprint + processing + dtype ─► maker ─┐
    content bytes ─► sha256 ───────────────────────────┴─► <root>/<maker>/ab/ab12….safetensors

An entry is addressed by what it was made from, so a changed weight, a changed setting and a changed file each
have an entry of their own. Several programs may read, write and evict in one store at the same time: an entry
appears whole, by a rename, and a program that has read one keeps it (it is mapped from its file) after it was
evicted.

safetensors keeps bfloat16 as it is, which numpy's format cannot, checks an entry's length, and is mapped
rather than read. One file an entry costs some 0.1 ms a lookup, far less than an encoder or a training step.
"""

import contextlib
import hashlib
import json
import logging
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import safetensors
import safetensors.torch
import torch

from mmsr.data.storage import is_url, read_bytes

logger = logging.getLogger(__name__)

Dtype = Literal["float16", "bfloat16", "float32"]
_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
_TOUCHED = 60.0  # seconds within which an entry's use is not noted again
_ABANDONED = 3600.0  # seconds after which a half-written file is taken to have no writer
OLDER = "older"
"""Maker of the entries of earlier releases, which nothing reads now."""


class Entry(NamedTuple):
    """One file of a store.

    Attributes:
        path: Where it is.
        maker: The folder of the encoder and the processing that made it.
        bytes: Its size.
        used: When it was written or last read, to a minute, in seconds since 1970.
    """

    path: Path
    maker: str
    bytes: int
    used: float


class FeatureStore:
    """Tensors on disk, addressed by what they were made from.

    Args:
        root: Folder of the store; made when something is put.
        dtype: How floating-point tensors are kept. It is part of the maker.

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
        """16 hex digits of an encoder and its processing: a folder, which `<maker>/maker.json` describes.

        Args:
            encoder: What identifies the encoder, such as `encoder_fingerprint` of it.
            processing: All that is done to the content before and after, as plain values that JSON can hold.
            name: Its name for people; not part of the digits.
        """
        made_by = {"encoder": encoder, "processing": dict(processing), "dtype": self.dtype}
        description = json.dumps(made_by, sort_keys=True)
        maker = hashlib.sha256(description.encode()).hexdigest()[:16]
        path = self.root / maker / "maker.json"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_suffix(f".{uuid.uuid4().hex}.tmp")
            unfinished.write_text(json.dumps({"name": name, **made_by}, indent=1), encoding="utf-8")
            os.replace(unfinished, path)
        return maker

    def key(self, maker: str, content: bytes) -> str:
        """Name of an entry: its maker and 64 hex digits of the content."""
        return f"{maker}/{hashlib.sha256(content).hexdigest()}"

    def get(self, key: str) -> dict[str, torch.Tensor] | None:
        """The entry's tensors, mapped from the file, or None where there is no entry.

        An entry that cannot be read is logged and counts as missing; the next `put` replaces it.
        """
        path = self._path(key)
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}
            with contextlib.suppress(PermissionError):  # a store may be shared for reading alone
                if time.time() - path.stat().st_mtime > _TOUCHED:
                    os.utime(path)  # a file's access time is not kept everywhere
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
        """Store tensors; floating-point ones in the store's dtype, others as they are.

        Returns:
            The tensors as they are stored.

        Raises:
            ValueError: A finite value is beyond the dtype's range.
        """
        kept = {name: self._as_kept(name, tensor) for name, tensor in tensors.items()}
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{uuid.uuid4().hex}.tmp")
        try:
            # save_file, killed, would leave files of names of its own, which nothing could clear away
            unfinished.write_bytes(safetensors.torch.save(kept))
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)
        return kept

    def _path(self, key: str) -> Path:
        maker, content = key.split("/")
        return self.root / maker / content[:2] / f"{content}.safetensors"

    def _as_kept(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.detach().cpu()
        if not tensor.is_floating_point():
            return tensor.clone(memory_format=torch.contiguous_format)
        # A copy, because safetensors refuses tensors that share memory, as two layers of one stack do.
        kept = tensor.to(_DTYPES[self.dtype], copy=True, memory_format=torch.contiguous_format)
        if not torch.equal(kept.isfinite(), tensor.isfinite()):
            peak = tensor[tensor.isfinite()].abs().max().item()
            raise ValueError(
                f"{name} reaches {peak:g}, beyond {self.dtype}; accepted: dtype bfloat16 or float32"
            )
        return kept

    # ------------------------------------------------------------------ housekeeping

    def entries(self) -> Iterator[Entry]:
        """All entries, in no order; one that is evicted meanwhile is left out."""
        for folder, _, names in os.walk(self.root):
            for name in names:
                if name.endswith(".safetensors"):
                    path = Path(folder, name)
                    parts = path.relative_to(self.root).parts
                    try:
                        status = path.stat()
                    except FileNotFoundError:
                        continue
                    maker = parts[0] if len(parts) == 3 else OLDER
                    yield Entry(path, maker, status.st_size, status.st_mtime)

    def makers(self) -> list[dict[str, Any]]:
        """`maker`, `name`, `dtype`, `entries`, `bytes` and `used` of all that have entries, largest first."""
        found: dict[str, dict[str, Any]] = {}
        for entry in self.entries():
            empty = {
                "maker": entry.maker,
                **self._described(entry.maker),
                "entries": 0,
                "bytes": 0,
                "used": 0.0,
            }
            maker = found.setdefault(entry.maker, empty)
            maker["entries"] += 1
            maker["bytes"] += entry.bytes
            maker["used"] = max(maker["used"], entry.used)
        return sorted(found.values(), key=lambda maker: -maker["bytes"])

    def _described(self, maker: str) -> dict[str, Any]:
        try:
            described = json.loads((self.root / maker / "maker.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {"name": "made by an earlier release; nothing reads it", "dtype": None}
        return {"name": described["name"], "dtype": described["dtype"]}

    def evict(self, *, to_bytes: int | None = None, older_than: float | None = None) -> tuple[int, int]:
        """Remove the least recently used entries; a running program encodes again what it still needs.

        Args:
            to_bytes: Remove until the rest has at most so many bytes.
            older_than: Remove all that were not used for so many seconds.

        Returns:
            How many entries were removed, and their bytes.
        """
        now = time.time()
        for half in self.root.rglob("*.tmp"):
            try:
                if now - half.stat().st_mtime > _ABANDONED:
                    half.unlink()
            except FileNotFoundError:
                continue  # its writer has finished
        entries = sorted(self.entries(), key=lambda entry: entry.used)
        total = sum(entry.bytes for entry in entries)
        removed = freed = 0
        for entry in entries:
            stale = older_than is not None and now - entry.used > older_than
            if not stale and (to_bytes is None or total - freed <= to_bytes):
                break  # what follows was used later
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
        """`time`, `run`, `hits` and `misses` of the last runs, the last one at the end."""
        try:
            lines = (self.root / "runs.jsonl").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in lines[-last:]]


class StoredFeatures:
    """A frozen encoder behind a store: the path of an audio file, or a text -> states `[n, l, d]`, made once.

    Args:
        store: Where the states are kept.
        encode: Paths or texts of one batch -> the states `[n, l, d]` of each.
        content: Path or text -> bytes that determine the states, such as `file_digest` for a path.
        encoder: What identifies the encoder, see `encoder_fingerprint`.
        processing: All else that determines the states.
        name: The encoder's name for people.
        batches: Groups inputs that can be encoded in one batch without changing each other; by default each
            is a batch of its own.
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
        self._batches = batches or (lambda inputs: ([path] for path in inputs))
        self._maker = store.maker(encoder, processing, name=name)

    def __call__(self, source: str) -> torch.Tensor:
        """The states of a path or text as the store keeps them, the first time too: all epochs are alike."""
        key = self._key(source)
        entry = self.store.get(key) or self.store.put(key, {"states": self._encode([source])[0]})
        return entry["states"]

    def fill(self, sources: Sequence[str]) -> Iterator[int]:
        """Encode the paths or texts that the store lacks; yields, after each batch, how many it has."""
        distinct = list(dict.fromkeys(sources))
        missing = [source for source in distinct if self.store.get(self._key(source)) is None]
        done = len(distinct) - len(missing)
        yield done
        for batch in self._batches(missing):
            for source, states in zip(batch, self._encode(batch), strict=True):
                self.store.put(self._key(source), {"states": states})
            done += len(batch)
            yield done

    def _key(self, source: str) -> str:
        return self.store.key(self._maker, self._content(source))


def file_digest(path: str) -> bytes:
    """sha256 of a file's bytes, which are read again only where size, inode or a time of the file changed.

    The content of a URL is read once in a process.
    """
    if is_url(path):
        return _digest(path, ())
    status = os.stat(path)
    return _digest(path, (status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns))


@lru_cache(maxsize=2**17)
def _digest(path: str, version: tuple[int, ...]) -> bytes:
    if is_url(path):
        return hashlib.sha256(read_bytes(path)).digest()
    with open(path, "rb") as file:  # in pieces: a recording of hours is gigabytes
        return hashlib.file_digest(file, "sha256").digest()


def encoder_fingerprint(module: torch.nn.Module) -> str:
    """Identify an encoder by its weights: sha256 of the names, types, shapes and bytes of its state dict.

    What is no weight (the kind of a layer, an option) is not covered: it belongs in `processing`.

    Returns:
        64 hex digits.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(content.numpy().data)
    return digest.hexdigest()
