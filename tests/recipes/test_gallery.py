"""The gallery's page, and the one that is committed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from recipes import gallery
from recipes.gallery import RECIPES, ROOT, Config

pytestmark = pytest.mark.slow

PAGE = ROOT / "docs" / "recipes.md"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Instead of a recipe runs a program that leaves behind what a recipe does."""
    commands: list[list[str]] = []

    def pretend(words: list[Any], check: bool) -> None:
        assert check
        command = [str(word) for word in words]
        commands.append(command)
        folder = Path(command[command.index("--logdir") + 1])
        folder.mkdir(parents=True)
        name = Path(command[1]).stem
        (folder / "picture.png").write_bytes(name.encode())
        result = {
            "claim": f"the claim of {name}.",
            "borne_out": name != "plateau",
            "verdict": f"the verdict on {name}",
            "table": ["a  b", f"{name}  1"],
            "pictures": ["picture.png"],
            "torch_version": "9.9",
            **({"accuracy": 0.915, "epochs": 4, "seconds": 50.2} if name == "train" else {}),
        }
        (folder / "result.json").write_text(json.dumps(result))

    monkeypatch.setattr(gallery.subprocess, "run", pretend)
    return commands


def test_every_recipe_is_run_and_shown(asked: list[list[str]], tmp_path: Path) -> None:
    gallery.run(Config(size="smoke", logdir=tmp_path))
    assert [Path(command[1]).stem for command in asked] == [*RECIPES, "train"]
    for command in asked[:-1]:
        assert Path(command[1]).is_file()
        assert command[2:4] == ["--size", "smoke"]
    page = (tmp_path / "recipes.md").read_text()
    for name in RECIPES:
        held = "**no**" if name == "plateau" else "yes"
        assert f"| [{name}](#{name}) | the claim of {name} | {held} |" in page
        assert f"the verdict on {name}\n" in page
        assert f"```text\na  b\n{name}  1\n```" in page
        assert (tmp_path / "images" / "recipes" / name / "picture.png").read_bytes() == name.encode()
    assert "Test accuracy 91.5% after 4 epochs, 50 seconds" in page


def test_the_recipes_are_all_there_is() -> None:
    scripts = {path.stem for path in (ROOT / "recipes").glob("*.py")}
    others = {
        "__init__",
        "gallery",
        "train",
        "minimal",
        "five_optimizers",
        "choose_lr",
        "range_test",
        "write_your_own",
    }
    assert scripts - others == set(RECIPES)


def test_the_committed_page_shows_every_recipe_and_its_pictures() -> None:
    page = PAGE.read_text(encoding="utf-8")
    links = re.findall(r"!\[.*?\]\((.*?)\)", page)
    assert all((PAGE.parent / link).stat().st_size > 1000 for link in links)
    for name in RECIPES:
        assert f"## {name}\n" in page
        assert any(f"/{name}/" in link for link in links)
