"""What the weight files of a base say about themselves: their index and headers, without reading a weight.

A safetensors file begins with its header's length (8 bytes, little-endian) and the header, a JSON object of each tensor's dtype,
shape and place (https://huggingface.co/docs/safetensors). So names, shapes, and whether a file is complete are known at once.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from data_schemas.errors import UserError
from data_schemas.quantities import data_size

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
_CONVERT = "load it once with transformers and write it with save_pretrained"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")
_LOADED = frozenset({".json", ".model", ".txt", ".jinja"})  # endings of what is read beside the weights
_POINTER = b"version https://git-lfs.github.com/spec/"
_LARGEST_HEADER = 100_000_000  # bytes, as in the safetensors library


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as its file's header describes it. `dtype` is safetensors' name, such as BF16."""

    shape: tuple[int, ...]
    dtype: str
    file: str


def stored_tensors(folder: Path, base: str) -> dict[str, StoredTensor]:
    """Every tensor that transformers would load from `folder`, by name. `base` is the user's name for the folder.

    UserError for weights that are missing, truncated, pickled, Git LFS pointers, or other than their index says.
    """
    if (folder / WEIGHTS).is_file():
        return read_header(folder / WEIGHTS, base)
    if not (folder / INDEX).is_file():
        raise UserError(_why_none(folder, base))
    places = _index(folder / INDEX, base)
    shards = sorted(set(places.values()))
    if missing := [name for name in shards if not (folder / name).is_file()]:
        raise UserError(
            f"The base model folder {base} lacks {len(missing)} of its {len(shards)} weight files ({some_names(missing)}): download them."
        )
    found: dict[str, StoredTensor] = {}
    for name in shards:
        tensors = read_header(folder / name, base)
        if twice := sorted(found.keys() & tensors.keys()):
            raise UserError(
                f"The base model folder {base} holds {some_names(twice)} both in {found[twice[0]].file} and in {name}: download one model "
                "into an empty folder."
            )
        found |= tensors
    if absent := [key for key, name in sorted(places.items()) if key not in found or found[key].file != name]:
        raise UserError(
            f"The base model folder {base} has an {INDEX} that names {some_names(absent)} in {places[absent[0]]}, which that file does not "
            "hold: download index and weights of one revision."
        )
    return found


def read_header(file: Path, base: str) -> dict[str, StoredTensor]:
    """The tensors of one safetensors file, by name. UserError for a file that is not complete or not safetensors."""
    num_bytes = file.stat().st_size
    with file.open("rb") as opened:
        start = opened.read(8)
        if _is_pointer(start + opened.read(len(_POINTER) - 8)):
            raise _pointer(file.name, base)
        opened.seek(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        header = opened.read(length) if 2 <= length <= min(_LARGEST_HEADER, num_bytes) else b""
    if num_bytes < 8 + length <= 8 + _LARGEST_HEADER and len(start) == 8:
        raise _cut(file.name, base, num_bytes, 8 + length)
    try:
        content = json.loads(header)
        tensors = dict(_tensors(content, file.name))
        end = max((entry["data_offsets"][1] for name, entry in content.items() if name != "__metadata__"), default=0)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise UserError(
            f"The weight file {file.name} of base model {base} is not a safetensors file, or is damaged: download it again."
        ) from error
    expected = 8 + length + end
    if num_bytes < expected:
        raise _cut(file.name, base, num_bytes, expected)
    if num_bytes > expected:
        raise UserError(
            f"The weight file {file.name} of base model {base} has {num_bytes - expected:,} bytes more than its header describes: "
            "download it again."
        )
    return tensors


def refuse_other_files(folder: Path, base: str) -> None:
    """UserError if a file that is loaded beside the weights is a Git LFS pointer, or if the folder is an adapter's.

    Weights are looked at where they are read: other formats of the same weights may well be pointers.
    """
    if (folder / "adapter_config.json").is_file():  # transformers would load the base that this file names, and add the adapter
        raise UserError(
            f"The base model folder {base} has an adapter_config.json: merge that adapter into its base first, or move the file out of "
            "the folder if the weights are merged already."
        )
    for file in sorted(folder.iterdir()):
        if file.suffix in _LOADED and file.is_file() and file.stat().st_size < 1024:
            with file.open("rb") as opened:
                if _is_pointer(opened.read(len(_POINTER))):
                    raise _pointer(file.name, base)


def refuse_pointer(name: str, opened: BinaryIO, base: str) -> None:
    """UserError if an open file is a Git LFS pointer; else it is at its start again."""
    if _is_pointer(opened.read(len(_POINTER))):
        raise _pointer(name, base)
    opened.seek(0)


def _is_pointer(start: bytes) -> bool:
    return start == _POINTER


def _pointer(name: str, base: str) -> UserError:
    return UserError(
        f"{name} of base model {base} is a Git LFS pointer, not the file itself: run `git lfs pull` in that folder."
    )


def _cut(name: str, base: str, num_bytes: int, expected: int) -> UserError:
    return UserError(
        f"The weight file {name} of base model {base} is cut off: it has {data_size(num_bytes)} ({num_bytes:,} bytes) instead of "
        f"{expected:,} bytes, so download it again."
    )


def _tensors(content: Mapping[str, Any], file: str) -> Iterator[tuple[str, StoredTensor]]:
    for name, entry in content.items():
        if name != "__metadata__":
            yield name, StoredTensor(tuple(map(int, entry["shape"])), str(entry["dtype"]), file)


def _index(path: Path, base: str) -> dict[str, str]:
    """{tensor: file} of a checkpoint in several files. UserError for an index that cannot be read or points out of its folder."""
    try:
        places = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        names = set(places.values())
        if not names or any(Path(name).name != name or not name.endswith(".safetensors") for name in names):
            raise ValueError("it must name safetensors files beside it")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path.name} of base model {base} cannot be used as an index of weight files ({error}): download it again."
        ) from error
    return dict(places)


def _why_none(folder: Path, base: str) -> str:
    """The sentence for a folder without weights that transformers would load."""
    if others := sorted(path.name for path in folder.glob("*.safetensors")):
        if any("-of-" in name for name in others):
            return f"The base model folder {base} has weight files ({some_names(others)}) but no {INDEX}: download that too."
        return f"The base model folder {base} has {some_names(others)} but no {WEIGHTS}: {_CONVERT}."
    if pickled := sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern)):
        return (
            f"The base model folder {base} has its weights only in {some_names(pickled)}, a format that can run code, so "
            f"Ropeway does not load it: {_CONVERT}."
        )
    return f"The base model folder {base} has no *.safetensors: convert its weights with save_pretrained."


def some_names(names: list[str]) -> str:
    """The first three, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
