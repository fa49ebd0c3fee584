"""A translator that tests can hold up."""

import pytest

from tests.support.serving import Shouting


@pytest.fixture
def shouting() -> Shouting:
    return Shouting()
