"""Fashion-MNIST (Xiao, Rasul, Vollgraf 2017, arXiv 1708.07747): 70,000 pictures of ten kinds of clothes.

The four files are looked for in this order:

1. `--data-dir`, if given: there, or in `FashionMNIST/raw/` below it as torchvision lays them, plain or .gz
2. Debian's package `dataset-fashion-mnist`
3. torchvision's place, `~/.cache/torchopt_course/data` or `--data-dir`: downloaded if they are not there

Wherever they come from, the decompressed bytes must have the SHA-256 below.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from pathlib import Path

import torch
from torch import Tensor

from recipes.common.errors import DataError

SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
# Of the 60,000 training pictures, with grey values scaled to [0, 1].
MEAN, STANDARD_DEVIATION = 0.2860, 0.3530


def load_fashion_mnist(data_dir: Path | None = None) -> tuple[Tensor, Tensor]:
    """70000 x 784 grey values, mean 0 and variance 1; and the kinds. The first 60,000 are to train on."""
    folder = find(data_dir)
    contents = {
        name: torch.frombuffer(bytearray(verified(folder, name)), dtype=torch.uint8) for name in SHA256
    }
    # IDX: a header of 16 bytes for pictures, of 8 for labels, then a byte for each pixel or label.
    images = [content[16:].view(-1, 784) for name, content in contents.items() if "images" in name]
    labels = [content[8:] for name, content in contents.items() if "labels" in name]
    return (torch.cat(images).float() / 255 - MEAN) / STANDARD_DEVIATION, torch.cat(labels).long()


def find(data_dir: Path | None) -> Path:
    """The folder with the four files; torchvision downloads them if they are nowhere."""
    cache = (
        data_dir or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "torchopt_course/data"
    )
    raw = cache / "FashionMNIST" / "raw"
    places = [*([data_dir] if data_dir else []), raw, DEBIAN]
    if data_dir is None:
        places.reverse()  # Debian's files rather than old downloads, but what the user names before all
    for place in places:
        if all(file_of(place, name) for name in SHA256):
            return place
    return download(cache)


def file_of(folder: Path, name: str) -> Path | None:
    """The file, as it is or compressed."""
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def download(root: Path) -> Path:
    """Let torchvision fetch the files, or say what else can be done."""
    from torchvision.datasets import FashionMNIST

    try:
        FashionMNIST(str(root), download=True)
    except (RuntimeError, OSError) as error:  # URLError is an OSError
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise DataError(
            f"Fashion-MNIST is not on this machine and could not be downloaded to {root} ({reason}). Either "
            "install Debian's package dataset-fashion-mnist, or name the folder of its four files "
            f"({', '.join(SHA256)}, plain or .gz) with --data-dir, or run again with a network connection"
        ) from error
    return root / "FashionMNIST" / "raw"


def verified(folder: Path, name: str) -> bytes:
    """The decompressed content of a file, if it is the right one."""
    path = file_of(folder, name)
    if path is None:
        raise DataError(f"{folder / name} is missing")
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != SHA256[name]:
        raise DataError(
            f"{path} is not Fashion-MNIST's: its content has SHA-256 {digest}, not {SHA256[name]}"
        )
    return content
