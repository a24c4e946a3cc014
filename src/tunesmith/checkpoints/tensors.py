"""Tensors to a safetensors file that is hashed while it is written: a thread hashes what another puts on the disk.

The format (https://huggingface.co/docs/safetensors): the length of the header in 8 bytes, little-endian; the header,
JSON with type, shape and place of each tensor, padded with blanks to a multiple of 8; the bytes of all tensors. It is
read by safetensors itself, whose own writer gives a file that has to be read again for its hash.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

__all__ = ["write_tensors"]

_TYPES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.int32: "I32",
    torch.int64: "I64",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
}
_AT_ONCE = 16 * 2**20  # bytes: enough for the disk, little enough for both threads to keep pace


def write_tensors(file: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write the file and return its SHA-256. Tensors may share memory and lie on any device.

    Raises TypeError for a type of numbers that the format does not have.
    """
    digest = hashlib.sha256()
    with file.open("wb", buffering=0) as handle, ThreadPoolExecutor(1, thread_name_prefix="hash") as pool:
        last = None
        for piece in _pieces(tensors):
            hashing = pool.submit(digest.update, piece)
            written = 0
            while written < len(piece):
                written += handle.write(piece[written:])
            if last is not None:
                last.result()  # not more than two pieces behind
            last = hashing
    return digest.hexdigest()


def _pieces(tensors: Mapping[str, Tensor]) -> Iterator[memoryview]:
    header: dict[str, object] = {}
    end = 0
    for name, tensor in tensors.items():
        if tensor.dtype not in _TYPES:
            raise TypeError(f"no place in safetensors for {tensor.dtype} of {name}")
        begin, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _TYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield memoryview(len(text).to_bytes(8, "little") + text)
    for tensor in tensors.values():
        flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        for begin in range(0, len(flat), _AT_ONCE):
            yield memoryview(flat[begin : begin + _AT_ONCE])  # type: ignore[arg-type]
