"""The program under test: weather reports, fetched over HTTP and kept in redis."""

from __future__ import annotations

import httpx
import redis


class NoReportError(Exception):
    """There is no report to be had."""


class Cache:
    """Reports by city, in redis. A redis that is down or slow costs time, bounded, and nothing else.

    Args:
        url: redis://host:port/database.
        timeout: seconds that redis may take for an answer.
    """

    def __init__(self, url: str, timeout: float = 0.5) -> None:
        self._redis = redis.Redis.from_url(
            url, socket_timeout=timeout, socket_connect_timeout=timeout, decode_responses=True, retry=None
        )

    def get(self, city: str) -> str | None:
        """The report, or None: not there, or redis is not."""
        try:
            return self._redis.get(city)
        except (redis.ConnectionError, redis.TimeoutError):
            return None

    def put(self, city: str, report: str) -> bool:
        """Keep a report; False: redis did not say that it does."""
        try:
            return bool(self._redis.set(city, report))
        except (redis.ConnectionError, redis.TimeoutError):
            return False

    def close(self) -> None:
        """Let go of the connections."""
        self._redis.close()


async def fetch(base_url: str, city: str, *, timeout: float = 5.0, attempts: int = 2) -> str:
    """The report of a city, whole or not at all. Runs under asyncio and trio.

    Args:
        base_url: http://host:port.
        city: whose.
        timeout: seconds for each step of an attempt.
        attempts: how often a connection may break before we give up; a slow server is not asked again.

    Raises:
        NoReportError: no answer in time, or none that was whole.
    """
    one_answer = {"Connection": "close"}
    async with httpx.AsyncClient(
        base_url=base_url, timeout=timeout, headers=one_answer, trust_env=False
    ) as client:
        for _ in range(attempts):
            try:
                answer = await client.get(f"/{city}")
            except httpx.TimeoutException as error:
                raise NoReportError(f"nothing about {city} within {timeout} s") from error
            except httpx.TransportError:
                continue
            if answer.is_success:
                return answer.text
    raise NoReportError(f"nothing about {city} in {attempts} attempts")
