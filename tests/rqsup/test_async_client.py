"""The asyncio client: the same answers as the blocking one, as coroutines."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest

from rqsup import AsyncClient, Client, Request, errors
from rqsup.store.server import LocalServer
from tests.rqsup.store.raw import Raw

Try = Callable[[Callable[[AsyncClient], Awaitable[None]]], None]


@pytest.fixture
def try_it(redis_server: LocalServer, namespace: str) -> Try:
    """Runs a coroutine function with an asyncio client in the test's namespace."""

    def run(body: Callable[[AsyncClient], Awaitable[None]]) -> None:
        async def with_client() -> None:
            async with AsyncClient(redis_server.url, namespace=namespace) as client:
                await body(client)

        asyncio.run(with_client())

    return run


def test_it_has_the_methods_of_the_blocking_client() -> None:
    def signatures(kind: type) -> dict[str, str]:
        return {
            name: str(inspect.signature(method)).partition("->")[0]
            for name, method in inspect.getmembers(kind, inspect.isfunction)
            if not name.startswith("_")
        }

    theirs = signatures(Client)
    # Concurrent calls of an asyncio client are sent together anyway.
    del theirs["buffer"]
    assert signatures(AsyncClient) == theirs


def test_jobs_are_sent_and_read(try_it: Try, client: Client) -> None:
    async def body(sender: AsyncClient) -> None:
        await sender.connect()
        job = await sender.enqueue("t", 1, x=2)
        assert (await job.refresh()).state == "ready"
        assert (await sender.get(job.id)).record == job.record
        later = await sender.enqueue_in(60, "t")
        at = await sender.enqueue_at(datetime.now(UTC) + timedelta(hours=1), "t")
        assert [(await one.refresh()).state for one in (later, at)] == ["scheduled", "scheduled"]
        await later.cancel()
        assert (await later.refresh()).state == "cancelled"

    try_it(body)


def test_many_jobs_are_sent_in_chunks_and_in_order(try_it: Try, client: Client) -> None:
    async def body(sender: AsyncClient) -> None:
        client.store.client.script_flush()
        jobs = await sender.enqueue_many(Request("t", (number,), job_id=f"j{number}") for number in range(1_200))
        assert [job.id for job in jobs] == Raw(client).ready("default:normal")

    try_it(body)


def test_a_result_is_awaited(try_it: Try, client: Client) -> None:
    async def body(sender: AsyncClient) -> None:
        job = await sender.send(Request("t", queue="q"))
        waiting = asyncio.create_task(job.result(timeout=10))
        await asyncio.sleep(0)
        raw = Raw(client)
        raw.register("w")
        raw.settle(raw.claim("w").jobs[0], "succeed", b'{"n": 1}', 60_000)
        assert await waiting == {"n": 1}

    try_it(body)


def test_errors_are_those_of_the_blocking_client(try_it: Try, client: Client) -> None:
    async def body(sender: AsyncClient) -> None:
        with pytest.raises(errors.JobNotFound):
            await sender.get("never")
        with pytest.raises(errors.InvalidJob):
            await sender.enqueue("t", object())
        with pytest.raises(errors.ResultTimeout):
            await (await sender.enqueue("t")).result(timeout=0.01)

        Raw(client).spoil(client.keys.ready("odd:normal"))
        with pytest.raises(errors.EnqueueError, match="WRONGTYPE"):
            await sender.send(Request("t", queue="odd"))
        with pytest.raises(errors.EnqueueError, match="WRONGTYPE"):
            await sender.enqueue_many([Request("t", queue="odd")])

    try_it(body)


def test_an_unreachable_server_is_one_error() -> None:
    async def send() -> None:
        async with AsyncClient("unix:///nowhere/redis.sock") as client:
            await client.enqueue("t")

    with pytest.raises(errors.RedisUnavailable, match="nowhere"):
        asyncio.run(send())


def test_concurrent_calls_of_one_client_do_not_mix(try_it: Try) -> None:
    async def body(sender: AsyncClient) -> None:
        jobs = await asyncio.gather(*(sender.enqueue("t", number) for number in range(200)))
        records = await asyncio.gather(*(sender.record(job.id) for job in jobs))
        assert len({job.id for job in jobs}) == 200
        assert [record.id for record in records] == [job.id for job in jobs]

    try_it(body)
