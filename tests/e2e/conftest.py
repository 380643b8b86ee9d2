from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.e2e.daprd import Daprd
from tests.e2e.secret_requests import APP_ID, ENVIRONMENT, Stores, write_stores


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Stores:
    """The files behind the table of secret requests."""
    return write_stores(tmp_path_factory.mktemp("stores"))


@pytest.fixture(scope="session")
def daprd(stores: Stores) -> Iterator[Daprd]:
    """A daprd on those stores, without an app."""
    with Daprd(resources=stores.resources, config=stores.config, app_id=APP_ID, env=ENVIRONMENT) as running:
        yield running


@pytest.fixture
def figure(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> Callable[[object], None]:
    """Print what a test found, also when it passes: ``make e2e``'s record of what was sent, answered and lost."""

    def show(found: object) -> None:
        with capsys.disabled():
            print(f"\n  {request.node.name}: {found}")

    return show
