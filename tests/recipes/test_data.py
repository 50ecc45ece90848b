"""The split: disjoint, stratified, the same for all runs; validation never touches the test rows."""

from __future__ import annotations

import gzip
import hashlib
import io
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from recipes.common import fashion_mnist
from recipes.common.data import Data, Split, load_data
from recipes.common.errors import DataError
from recipes.common.fashion_mnist import load_fashion_mnist
from recipes.train import main

CPU = torch.device("cpu")


def rows(split: Split) -> tuple[set[int], set[int]]:
    data = load_data("digits", split, CPU)
    return set(data.train_rows.tolist()), set(data.eval_rows.tolist())


def test_the_test_split_uses_every_row_once() -> None:
    train, test = rows("test")
    assert not train & test
    assert train | test == set(range(1797))
    assert len(test) == 360


def test_the_validation_split_never_touches_the_test_rows() -> None:
    train_part, test_part = rows("test")
    train, validation = rows("validation")
    assert not train & validation
    assert train | validation == train_part
    assert not (train | validation) & test_part
    assert len(validation) == 288


@pytest.mark.parametrize("split", ["test", "validation"])
def test_every_digit_keeps_its_share(split: Split) -> None:
    data = load_data("digits", split, CPU)
    in_train = np.bincount(data.train_targets.numpy(), minlength=10)
    in_eval = np.bincount(data.eval_targets.numpy(), minlength=10)
    # 20 % of each digit, rounded up or down: a plain random split misses by up to ten rows.
    assert np.abs(in_eval - 0.2 * (in_train + in_eval)).max() <= 1


@pytest.mark.parametrize("split", ["test", "validation"])
def test_inputs_and_targets_are_the_source_rows_scaled_to_one(split: Split) -> None:
    source = load_digits()
    data = load_data("digits", split, CPU)
    for inputs, targets, row_numbers in (
        (data.train_inputs, data.train_targets, data.train_rows),
        (data.eval_inputs, data.eval_targets, data.eval_rows),
    ):
        assert inputs.dtype == torch.float32
        np.testing.assert_array_equal(inputs.numpy() * 16, source.data[row_numbers])
        np.testing.assert_array_equal(targets.numpy(), source.target[row_numbers])
    assert data.train_inputs.min() == 0
    assert data.train_inputs.max() == 1


def test_the_split_does_not_depend_on_the_random_state_of_the_run() -> None:
    def load(seed: int) -> Data:
        load_data.cache_clear()
        torch.manual_seed(seed)
        np.random.seed(seed)
        return load_data("digits", "test", CPU)

    assert torch.equal(load(1).eval_rows, load(2).eval_rows)


# ---------------------------------------------------------------- Fashion-MNIST


def idx_files(folder: Path, compressed: bool = False) -> None:
    """Small files in the four formats: the pictures of a row all have the row's number as grey value."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in fashion_mnist.SHA256:
        rows = 60 if name.startswith("train") else 10
        body = bytes(range(rows)) if "labels" in name else bytes(i for i in range(rows) for _ in range(784))
        content = bytes(8 if "labels" in name else 16) + body
        if compressed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without Debian's package, and with an empty cache; small files count as the right ones."""
    load_data.cache_clear()
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "debian")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    idx_files(tmp_path / "model")
    digests = {
        name: hashlib.sha256((tmp_path / "model" / name).read_bytes()).hexdigest()
        for name in fashion_mnist.SHA256
    }
    monkeypatch.setattr(fashion_mnist, "SHA256", digests)
    return tmp_path


@pytest.mark.parametrize(
    ("place", "compressed", "named"),
    [
        ("mine", False, True),
        ("mine/FashionMNIST/raw", True, True),
        ("debian", True, False),
        ("cache/torchopt_course/data/FashionMNIST/raw", False, False),
    ],
)
def test_the_files_are_found(place: str, compressed: bool, named: bool, nowhere: Path) -> None:
    idx_files(nowhere / place, compressed)
    inputs, targets = load_fashion_mnist(nowhere / "mine" if named else None)
    assert inputs.shape == (70, 784)
    assert targets.tolist() == [*range(60), *range(10)]
    grey = torch.tensor([*range(60), *range(10)]).double().unsqueeze(1) / 255
    torch.testing.assert_close(inputs.double(), ((grey - 0.2860) / 0.3530).expand(70, 784), rtol=0, atol=1e-6)


def test_a_file_with_another_content_is_refused(nowhere: Path) -> None:
    idx_files(nowhere / "mine", compressed=True)
    path = nowhere / "mine" / "t10k-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(bytes(18)))
    with pytest.raises(DataError, match=rf"{path} is not Fashion-MNIST's: its content has SHA-256"):
        load_fashion_mnist(nowhere / "mine")
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(DataError, match=f"{path} cannot be read"):
        load_fashion_mnist(nowhere / "mine")


@pytest.fixture
def network(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """What the network has, by name; of what was asked for, "asked" has the names."""
    idx_files(nowhere / "model", compressed=True)
    answers = {path.name: path.read_bytes() for path in (nowhere / "model").glob("*.gz")}

    def urlopen(address: str, timeout: float) -> io.BytesIO:
        time.sleep(0.01)  # others come meanwhile
        return io.BytesIO(answers[address.rpartition("/")[2]])

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    return answers


def test_missing_data_are_downloaded_once(
    nowhere: Path, network: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    idx_files(nowhere / "debian")  # a folder that was named is not left for other files
    with ThreadPoolExecutor(4) as several:  # torchrun's processes all load the data
        targets = [*several.map(lambda _: load_fashion_mnist(nowhere / "mine")[1].tolist(), range(4))]
    assert targets == [[*range(60), *range(10)]] * 4
    assert capsys.readouterr().err.count("downloading") == 4
    network.clear()
    load_fashion_mnist(nowhere / "mine")


@pytest.mark.parametrize("content", [b"", b"<html>please log in</html>", gzip.compress(bytes(9)), None])
def test_a_download_that_is_not_whole_leaves_nothing_behind(
    content: bytes | None, nowhere: Path, network: dict[str, bytes]
) -> None:
    name = "t10k-images-idx3-ubyte.gz"
    right = network[name]
    network[name] = right[:-9] if content is None else content
    with pytest.raises(DataError, match=f"could not be downloaded .*{name} "):
        load_fashion_mnist()
    for damaged in (None, b"", right[:-9]):  # a file from elsewhere is not overwritten without being asked
        network[name] = right
        if damaged is not None:
            [path] = (nowhere / "cache").rglob(name)
            path.write_bytes(damaged)
            with pytest.raises(DataError, match=f"{path}.*if you move it away, it is downloaded"):
                load_fashion_mnist()
            path.unlink()
        assert len(load_fashion_mnist()[1]) == 70


def test_a_cache_without_a_name_is_the_usual_one(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the XDG specification says, which `export XDG_CACHE_HOME=` relies on."""
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(nowhere))
    idx_files(nowhere / ".cache/torchopt_course/data/FashionMNIST/raw")
    assert len(load_fashion_mnist()[1]) == 70


def test_without_a_network_the_three_ways_are_named(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fashion_mnist, "SOURCE", "http://127.0.0.1:9")  # where nobody listens
    monkeypatch.setattr(
        sys, "argv", ["train.py", "--data", "fashion-mnist", "--logdir", str(nowhere / "run")]
    )
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 1
    last = capsys.readouterr().err.splitlines()[-1]
    for way in ("dataset-fashion-mnist", "--data-dir", "network connection"):
        assert way in last
    assert not (nowhere / "run").exists()


@pytest.mark.skipif(not fashion_mnist.DEBIAN.exists(), reason="needs Debian's package dataset-fashion-mnist")
def test_the_real_pictures() -> None:
    data = load_data("fashion-mnist", "validation")
    assert data.train_inputs.shape == (50_000, 784)
    assert data.eval_targets.bincount().tolist() == [1000] * 10
    assert data.train_inputs.mean().abs() < 0.01
    assert abs(data.train_inputs.std() - 1) < 0.01
    # torchvision's own reader, of the same files.
    from torchvision.datasets.mnist import read_image_file

    raw = gzip.decompress((fashion_mnist.DEBIAN / "train-images-idx3-ubyte.gz").read_bytes())
    with tempfile.NamedTemporaryFile() as file:
        file.write(raw)
        file.flush()
        pictures = read_image_file(file.name)
    row = int(data.eval_rows[5])
    expected = (pictures[row].double() / 255 - 0.2860) / 0.3530
    torch.testing.assert_close(data.eval_inputs[5].double(), expected.flatten(), rtol=0, atol=1e-6)
    part = data.first(1000)
    assert len(set(part.train_rows.tolist())) == 1000
    assert set(part.train_rows.tolist()) <= set(data.train_rows.tolist())
    assert data.sha256() != part.sha256()
