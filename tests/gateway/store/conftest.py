"""A fresh database for each test: the schema is made once and its file is copied."""

import asyncio
import shutil
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from tollway.config.secret import Secret
from tollway.gateway.secrets_at_rest import Vault
from tollway.gateway.store import Store, migrate


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("schema") / "template.db"
    asyncio.run(migrate.upgrade(str(path)))
    return path


@pytest.fixture
def path(template: Path, tmp_path: Path) -> Path:
    return shutil.copy(template, tmp_path / "tollway.db")


@pytest.fixture
async def store(path: Path) -> AsyncGenerator[Store]:
    store = Store(f"sqlite:///{path}")
    await store.connect()
    yield store
    await store.close()


@pytest.fixture
def vault() -> Vault:
    return Vault(Secret("the secret of these tests"))
