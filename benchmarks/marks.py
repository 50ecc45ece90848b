"""Tables in a page that somebody else writes: between two marks, and nothing beside them changes."""

from __future__ import annotations

import re
from typing import NamedTuple


class Marks(NamedTuple):
    """Where a command writes into a page.

    Attributes:
        start, end: lines of the page, comments that say which command writes between them.
    """

    start: str
    end: str

    def rewritten(self, page: str, between: str) -> str:
        """The page with something else between its marks.

        Raises:
            ValueError: it has no such marks, or several.
        """
        pattern = re.compile(f"{re.escape(self.start)}.*?{re.escape(self.end)}", re.DOTALL)
        new, places = pattern.subn(lambda _: f"{self.start}\n\n{between}\n\n{self.end}", page)
        if places != 1:
            raise ValueError(
                f"there are {places} places for the tables, not one between {self.start} and {self.end}"
            )
        return new
