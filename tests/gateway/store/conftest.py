"""What tests of the store share."""

from pathlib import Path

import pytest
from tollway.config.secret import Secret
from tollway.gateway.secrets_at_rest import Vault
from tollway.gateway.store.address import parse


@pytest.fixture
def path(database_url: str) -> Path:
    """The database's file; for tests that are about SQLite."""
    return Path(parse(database_url).path)


@pytest.fixture
def vault() -> Vault:
    return Vault(Secret("the secret of these tests"))
