"""Checkpoints: a damaged, foreign or hostile file is named, and nothing but the right bytes is accepted."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from recipes.common.errors import CheckpointError
from recipes.trainer.checkpoint import Checkpoints, opened, serialised

CONTENT = {
    "model": {"weight": torch.arange(6.0).view(2, 3), "half": torch.ones(2, dtype=torch.bfloat16)},
    "numbers": [1, 2.5, None, True, "text"],
}


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    store = Checkpoints(tmp_path)
    for step in (10, 20):
        store.save(step, {**CONTENT, "step": step})
    return store


def assert_equal(mine: Any, other: Any) -> None:
    if isinstance(other, dict):
        assert mine.keys() == other.keys()
        for name in other:
            assert_equal(mine[name], other[name])
    elif isinstance(other, torch.Tensor):
        assert torch.equal(mine, other)
        assert mine.dtype == other.dtype
    else:
        assert mine == other


def test_what_is_saved_is_loaded_also_by_torch_itself(checkpoints: Checkpoints) -> None:
    assert_equal(checkpoints.newest(), {**CONTENT, "step": 20})
    newest = [*checkpoints.by_step().values()][-1]
    assert_equal(torch.load(newest, weights_only=True), {**CONTENT, "step": 20})


def test_two_are_kept_and_other_files_are_left_alone(checkpoints: Checkpoints) -> None:
    foreign = checkpoints.folder / "step-1.pt"
    foreign.write_text("mine")
    checkpoints.save(30, {"step": 30})
    assert [*checkpoints.by_step()] == [20, 30]
    checkpoints.clear()
    assert list(checkpoints.folder.iterdir()) == [foreign]


def test_no_files_no_content(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path).newest() is None


class Hostile:
    """What a pickle may do when it is loaded by those who trust it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("/tmp/torchopt_course_was_here",)


def hostile(tmp_path: Path) -> bytes:
    torch.save({"a": Hostile()}, tmp_path / "hostile")
    return (tmp_path / "hostile").read_bytes()


def flipped_in_data(good: bytes) -> bytes:
    """One bit of the pickle is another."""
    place = good.index(b"numbers")
    return good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda good, _: b"", "cut off, damaged, or no checkpoint"),
        (lambda good, _: good[: len(good) // 2], "cut off, damaged, or no checkpoint"),
        (lambda good, _: good[:-1], "cut off, damaged, or no checkpoint"),
        (lambda good, _: b"a letter to a friend" * 50, "cut off, damaged, or no checkpoint"),
        (lambda good, _: flipped_in_data(good), "damaged: archive/data.pkl in it has another checksum"),
        (lambda good, folder: hostile(folder), "not safe to load"),
        (lambda good, _: serialised([1, 2]), "holds a list"),  # type: ignore[arg-type]
    ],
)
def test_a_bad_file_is_named_in_one_line_and_the_one_before_it_taken(
    damage: Any, message: str, checkpoints: Checkpoints, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    newest = [*checkpoints.by_step().values()][-1]
    newest.write_bytes(damage(newest.read_bytes(), tmp_path))
    content = checkpoints.newest()
    assert content is not None
    assert content["step"] == 10
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith(str(newest))
    assert message in said
    assert not Path("/tmp/torchopt_course_was_here").exists()
    # Kept for whoever wants to look into it, but no longer in the way.
    assert newest.with_suffix(".damaged").exists()
    checkpoints.save(15, {"step": 15})
    assert [*checkpoints.by_step()] == [10, 15]


def test_none_valid_is_an_error_and_everything_stays(checkpoints: Checkpoints) -> None:
    for path in checkpoints.by_step().values():
        path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(CheckpointError, match=r"no checkpoint in .* is valid"):
        checkpoints.newest()
    assert len(checkpoints.by_step()) == 2


def corrupted(good: bytes, dice: random.Random) -> bytes:
    """The bytes after one of the accidents that happen to files."""
    place, other = sorted(dice.sample(range(len(good)), 2))
    accident = dice.randrange(6)
    if accident == 0:  # one bit
        return good[:place] + bytes([good[place] ^ 1 << dice.randrange(8)]) + good[place + 1 :]
    if accident == 1:  # cut off
        return good[:place]
    if accident == 2:  # a hole of zeros
        holed = good[:place] + bytes(other - place) + good[other:]
        return holed if holed != good else good[:place]
    if accident == 3:  # a piece is missing
        return good[:place] + good[other:]
    if accident == 4:  # something is added
        return good + dice.randbytes(1 + dice.randrange(100))
    return good[:place] + dice.randbytes(1) + good[place:]  # a byte slipped in


def corrupt_and_open(folder: Path, times: int, dice: random.Random) -> int:
    """How many of so many corruptions gave another content than the one that was saved."""
    path = folder / "checkpoint"
    content = {**CONTENT, "step": 1}
    good = serialised(content)
    accepted = 0
    for _ in range(times):
        path.write_bytes(corrupted(good, dice))
        try:
            assert_equal(opened(path), content)  # harmless: in the padding between files, or after the end
        except CheckpointError:
            pass
        except AssertionError:
            accepted += 1
    return accepted


def test_no_corruption_is_accepted(tmp_path: Path) -> None:
    assert corrupt_and_open(tmp_path, 60, random.Random()) == 0


def test_torch_alone_would_have_accepted_most_flipped_bits(tmp_path: Path) -> None:
    # The reason for looking at the checksums.
    good = serialised(CONTENT)
    dice, accepted = random.Random(0), 0
    for _ in range(40):
        place = dice.randrange(len(good))
        (tmp_path / "flipped").write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        try:
            torch.load(tmp_path / "flipped", weights_only=True)
            accepted += 1
        except Exception:
            pass
    assert accepted > 20
