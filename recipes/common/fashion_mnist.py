"""Fashion-MNIST (Xiao, Rasul, Vollgraf 2017, arXiv 1708.07747): 70,000 pictures of ten kinds of clothes.

The four files are looked for in this order:

1. Debian's package `dataset-fashion-mnist`, or instead `--data-dir` if given
2. `FashionMNIST/raw/`, where torchvision lays them too, in `--data-dir` or `~/.cache/torchopt_course/data`

Plain or .gz; if they are in neither place, they are downloaded to the second, each whole or not at all.

Wherever they come from, the decompressed bytes must have the SHA-256 below.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import sys
import urllib.request
import zlib
from http.client import HTTPException
from pathlib import Path

import torch
from torch import Tensor

from recipes.common.errors import DataError
from recipes.common.folder import write_whole

SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
SOURCE = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
# Of the 60,000 training pictures, with grey values scaled to [0, 1].
MEAN, STANDARD_DEVIATION = 0.2860, 0.3530


def load_fashion_mnist(data_dir: Path | None = None) -> tuple[Tensor, Tensor]:
    """70000 x 784 grey values, mean 0 and variance 1; and the kinds. The first 60,000 are to train on."""
    contents = [read(path, digest) for path, digest in zip(find(data_dir), SHA256.values(), strict=True)]
    # IDX: a header of 16 bytes for pictures, of 8 for labels, then a byte for each pixel or label.
    images = torch.cat([content[16:].view(-1, 784) for content in contents[::2]])
    labels = torch.cat([content[8:] for content in contents[1::2]])
    return (images.float() / 255 - MEAN) / STANDARD_DEVIATION, labels.long()


def find(data_dir: Path | None) -> list[Path]:
    """The four files; a folder that was named is never left for others without a word."""
    cache = (
        data_dir or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "torchopt_course/data"
    )
    raw = cache / "FashionMNIST" / "raw"
    for place in (data_dir or DEBIAN, raw):
        if len(files := files_in(place)) == len(SHA256):
            return files
    try:
        download(raw)
    except (OSError, HTTPException, DataError) as error:  # URLError is an OSError
        raise DataError(
            f"Fashion-MNIST is not in {cache} and could not be downloaded there ({error}). Either "
            "install Debian's package dataset-fashion-mnist and leave out --data-dir, or name the folder of "
            f"its four files ({', '.join(SHA256)}, plain or .gz) with it, or run again "
            "with a network connection"
        ) from error
    return files_in(raw)


def files_in(folder: Path) -> list[Path]:
    """Those of the four files that are there, each as it is or else compressed."""
    plain = [folder / name for name in SHA256]
    files = [path if path.is_file() else path.with_name(f"{path.name}.gz") for path in plain]
    return [path for path in files if path.is_file()]


def download(folder: Path) -> None:
    """Fetch what is missing; of several processes that come here at once the others wait."""
    from filelock import FileLock  # torch depends on it

    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        for name, digest in SHA256.items():
            path, address = folder / f"{name}.gz", f"{SOURCE}/{name}.gz"
            if not path.exists():
                print(f"downloading {address} to {folder}", file=sys.stderr)
                with urllib.request.urlopen(address, timeout=30) as answer:
                    packed = answer.read()
                verified(address, packed, digest)
                write_whole(path, packed)


def read(path: Path, digest: str) -> Tensor:
    """The decompressed bytes of a file, if it is the right one."""
    try:
        return torch.frombuffer(bytearray(verified(path, path.read_bytes(), digest)), dtype=torch.uint8)
    except (OSError, DataError) as error:
        raise DataError(f"{error}; if you move it away, it is downloaded") from error


def verified(name: object, content: bytes, digest: str) -> bytes:
    """The decompressed content, if it is the right one."""
    try:
        content = gzip.decompress(content) if str(name).endswith(".gz") else content
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{name} cannot be read: {error}") from error
    if (found := hashlib.sha256(content).hexdigest()) != digest:
        raise DataError(f"{name} is not Fashion-MNIST's: its content has SHA-256 {found}, not {digest}")
    return content
