"""A store for what frozen encoders answer, so that each input is encoded once and never again.

    encoder fingerprint + processing + content bytes ─► sha256 ─► <root>/ab/ab12….safetensors

An entry is found by what it was made from, so a changed weight, a changed setting and a changed file each
have their own entry. Several programs may read and write one store at the same time: an entry appears whole,
by a rename.
"""

import hashlib
import json
import logging
import os
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors
import safetensors.torch
import torch

from mmsr.data.audio import Audio

logger = logging.getLogger(__name__)

_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


class FeatureStore:
    """Tensors on disk, addressed by what they were made from.

    Args:
        root: Folder of the store; made when it is missing.
        dtype: How floating-point tensors are kept. It is part of the key.

    Raises:
        ValueError: `dtype` is unknown.
    """

    def __init__(
        self, root: str | os.PathLike[str], *, dtype: Literal["float16", "bfloat16", "float32"] = "float16"
    ):
        if dtype not in _DTYPES:
            raise ValueError(f"dtype is {dtype!r}; accepted: {', '.join(_DTYPES)}")
        self.root = Path(root)
        self.dtype = dtype
        self._hits = 0
        self._misses = 0

    def key(self, encoder: str, processing: Mapping[str, Any], content: bytes) -> str:
        """Name of an entry: 64 hex digits.

        Args:
            encoder: What identifies the encoder, such as `encoder_fingerprint`'s answer.
            processing: All that is done to the content before and after, as plain values that JSON can hold.
            content: The input itself, such as a file's bytes.
        """
        made_by = {"encoder": encoder, "processing": dict(processing), "dtype": self.dtype}
        description = json.dumps(made_by, sort_keys=True).encode()
        return hashlib.sha256(description + b"\0" + content).hexdigest()

    def get(self, key: str) -> dict[str, torch.Tensor] | None:
        """The entry's tensors, mapped from the file, or None where there is none.

        An entry that cannot be read is logged and counts as none; the next `put` replaces it.
        """
        try:
            with safetensors.safe_open(self._path(key), framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}
        except FileNotFoundError:
            self._misses += 1
            return None
        except (safetensors.SafetensorError, OSError) as error:
            logger.warning("%s: cannot be read and will be made again (%s)", self._path(key), error)
            self._misses += 1
            return None
        self._hits += 1
        return tensors

    def put(self, key: str, tensors: Mapping[str, torch.Tensor]) -> None:
        """Keep tensors; floating-point ones in the store's dtype, others as they are.

        Raises:
            ValueError: A finite value is beyond the dtype's range.
        """
        kept = {name: self._as_kept(name, tensor) for name, tensor in tensors.items()}
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{uuid.uuid4().hex}.tmp")
        try:
            safetensors.torch.save_file(kept, unfinished)
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)

    def stats(self) -> dict[str, int]:
        """`entries` and `bytes` on disk, and the `hits` and `misses` of this object."""
        sizes = [path.stat().st_size for path in self.root.glob("??/*.safetensors")]
        return {"entries": len(sizes), "bytes": sum(sizes), "hits": self._hits, "misses": self._misses}

    def _path(self, key: str) -> Path:
        return self.root / key[:2] / f"{key}.safetensors"

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


class StoredFeatures:
    """A frozen encoder behind a store: path of an audio file -> its states `[f, l, d]`, encoded at most once.

    Args:
        store: Where the states are kept.
        encode: Waveform `[s]` at 16 kHz -> states `[f, l, d]`.
        encoder: What identifies the encoder, see `encoder_fingerprint`.
        processing: All else that decides the states.
    """

    def __init__(
        self,
        store: FeatureStore,
        encode: Callable[[np.ndarray], torch.Tensor],
        *,
        encoder: str,
        processing: Mapping[str, Any],
    ):
        self.store = store
        self._encode = encode
        self._encoder = encoder
        self._processing = dict(processing)
        self._audio = Audio()

    def __call__(self, path: str) -> torch.Tensor:
        """The states of one file as the store keeps them, the first time too: all epochs are alike."""
        key = self.store.key(self._encoder, self._processing, Path(path).read_bytes())
        if (entry := self.store.get(key)) is None:
            self.store.put(key, {"states": self._encode(self._audio(path))})
            entry = self.store.get(key)
            assert entry is not None
        return entry["states"]


def encoder_fingerprint(module: torch.nn.Module) -> str:
    """Identify an encoder by its weights: sha256 over names, types, shapes and bytes of its state.

    What is not a weight (a layer's kind, an option) is not covered: it belongs into `processing`.

    Returns:
        64 hex digits.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(content.numpy().data)
    return digest.hexdigest()
