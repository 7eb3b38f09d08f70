"""What engines report of themselves, by the metrics of vLLM."""

from aiohttp import web

from rewardloop.clients.allowance import Load
from rewardloop.clients.generator import GeneratorClient
from rewardloop.clients.loads import Loads, reported
from tests.unit.clients.scripted import KEY, Serve

VLLM = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="policy"} 12.0
vllm:num_requests_running{engine="1",model_name="a } b"} 3.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="policy"} 5.0
vllm:num_requests_waiting{engine="1",model_name="a } b"} 1e+01
# TYPE vllm:num_requests_waiting_by_reason gauge
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 5.0
"""


def test_all_engines_of_a_server_are_read_together() -> None:
    assert reported(VLLM) == Load(15, 15)
    assert reported("vllm:num_requests_running 1.0\nvllm:num_requests_waiting 0\n") == Load(1, 0)
    assert reported("vllm:num_requests_running 1.0\n") is None
    assert reported("") is None


class Page:
    def __init__(self, text: str, status: int = 200) -> None:
        self.text, self.status, self.num_asked = text, status, 0

    async def __call__(self, request: web.Request) -> web.Response:
        assert request.path == "/metrics"
        assert request.headers["authorization"] == f"Bearer {KEY}"
        self.num_asked += 1
        return web.Response(text=self.text, status=self.status)


async def test_one_that_reports_nothing_is_asked_no_more_and_one_that_is_away_is(
    serve: Serve,
) -> None:
    engine, other, foreign, away = Page(VLLM), Page("up 1\n"), Page("", 404), Page(VLLM, 503)
    urls = [await serve(page) for page in (engine, other, foreign, away)]
    async with Loads(KEY) as loads:
        assert await loads.of(urls) == {urls[0]: Load(15, 15)}
        away.status = 200
        assert await loads.of(urls) == {urls[0]: Load(15, 15), urls[3]: Load(15, 15)}
    assert [page.num_asked for page in (engine, other, foreign, away)] == [2, 1, 1, 2]


async def test_a_client_hears_of_its_own_servers() -> None:
    async with GeneratorClient(["http://a", "http://b"], KEY) as client:
        client.hear({"http://a": Load(1, 300), "http://c": Load(1, 1)})
        assert client.standing() == (
            "http://a gets 8 calls at once and reports 1 running, 300 waiting; "
            "http://b gets 256 calls at once and reports nothing"
        )
