"""Take in the body of an HTTP answer from somebody who may send what he likes."""

import httpx


class AnswerError(Exception):
    """The body is not one to be read; the message follows the name of who sent it."""


async def body(response: httpx.Response, largest: int) -> bytes:
    """Read a body of at most `largest` bytes that came as it is, from a response that is streamed."""
    if response.headers.get("content-encoding", "identity") != "identity":
        raise AnswerError("answered compressed, which was not asked for")
    found = bytearray()
    async for chunk in response.aiter_bytes():
        found += chunk
        if len(found) > largest:
            raise AnswerError(f"answered with more than {largest // 1024} KiB")
    return bytes(found)
