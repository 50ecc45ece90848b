"""The lines that ``python -m tests.mutations`` breaks are still there: otherwise it would break none."""

from __future__ import annotations

from pathlib import Path

import pytest

import torchopt_course as oc

from ..broken_lines import MUTATIONS, Mutation

PACKAGE = Path(oc.__file__).parent


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_what_a_mutation_breaks_is_there_once(mutation: Mutation) -> None:
    assert (PACKAGE / mutation.file).read_text(encoding="utf-8").count(mutation.old) == 1
    file, _ = mutation.tests
    assert (Path(__file__).parents[1] / file).exists()
