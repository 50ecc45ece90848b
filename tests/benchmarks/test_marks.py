"""Only what stands between the marks of a page is replaced; a page without them is refused."""

from __future__ import annotations

import pytest

from benchmarks import readme, storage
from benchmarks.languages import __main__ as languages
from benchmarks.marks import Marks


@pytest.mark.parametrize("marks", [readme.MARKS, storage.MARKS, languages.MARKS])
@pytest.mark.parametrize("old", ["old", "old \\1"])
def test_only_what_is_between_the_marks_is_replaced(marks: Marks, old: str) -> None:
    page = f"# before\n\n{marks.start}\n\n{old}\n\n{marks.end}\n\nafter\n"
    assert marks.rewritten(page, "new \\1") == page.replace(old, "new \\1")
    for other in ("# a page without marks", page.removesuffix("after\n").replace(marks.end, "")):
        with pytest.raises(ValueError, match="0 places"):
            marks.rewritten(other, "new")
    with pytest.raises(ValueError, match="2 places"):
        marks.rewritten(page + page, "new")
