"""The server that the tests of the API's routes share, and the form of such a test."""

import pytest

from api_client import connect
from clusters import run, slow_cluster


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Echo, chain5 and `slow` (a model node that takes about 1.2 s) on SQLite, two engines."""
    with slow_cluster(tmp_path_factory.mktemp("api"), latency=1.2, engines=2, workers=2) as cluster:
        yield cluster
        cluster.check_clean()


def api_test(function):
    """Runs `async def test(api)` with an Api on the module's server."""
    def test(server):
        async def body():
            async with connect(server.url) as api:
                await function(api)
        run(body())
    test.__name__ = function.__name__
    test.__doc__ = function.__doc__
    return test
