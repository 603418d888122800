"""Requests from bytes: what is one, what is none yet, and what is answered with which error."""

from __future__ import annotations

from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_asd.publish.http_message import LONGEST_HEAD, LONGEST_TARGET, Answer, BadRequestError, take_request

GET = b"GET /metrics HTTP/1.1\r\nHost: hall\r\n\r\n"


def test_a_request_is_taken_off_what_was_received() -> None:
    received = bytearray(
        b"GET /metrics?x=1 HTTP/1.1\r\nHost: hall:9464\r\nACCEPT: text/plain\r\nAccept:  */*\t\r\n\r\n"
        + GET
        + b"GET /h"
    )
    first, second = take_request(received), take_request(received)
    assert first is not None and second is not None
    assert (first.method, first.path, first.keeps_open) == ("GET", "/metrics", True)
    assert first.headers == {"host": "hall:9464", "accept": "text/plain, */*"}
    assert second.headers == {"host": "hall"}
    assert received == b"GET /h" and take_request(received) is None


def test_it_does_not_matter_how_it_comes() -> None:
    received = bytearray()
    for number, byte in enumerate(GET):
        assert take_request(received) is None, number
        received.append(byte)
    assert take_request(received) is not None


@pytest.mark.parametrize(
    ("head", "path", "keeps_open"),
    [
        ("GET / HTTP/1.1\nHost: x\n\n", "/", True),
        ("\r\n\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", "/", True),
        ("GET /healthz HTTP/1.0\r\n\r\n", "/healthz", False),
        ("GET /a HTTP/1.1\r\nHost: x\r\nConnection: Close\r\n\r\n", "/a", False),
        ("GET http://hall:9464/metrics?q HTTP/1.1\r\nHost: x\r\n\r\n", "/metrics", True),
        ("GET https://hall HTTP/1.1\r\nHost: x\r\n\r\n", "/", True),
        ("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", "*", True),
        ("GET /a HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", "/a", True),
        # A body is not read: nothing after it can be understood.
        ("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n", "/a", False),
        ("GET /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", "/a", False),
    ],
)
def test_ways_to_say_it(head: str, path: str, keeps_open: bool) -> None:
    request = take_request(bytearray(head.encode()))
    assert request is not None and (request.path, request.keeps_open) == (path, keeps_open)


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (b"\x16\x03\x01\x02\x00", 400),
        (b"hello\r\n", 400),
        (b"GET /metrics\r\n", 400),
        (b"GET  /metrics HTTP/1.1\r\n", 400),
        (b"GET /a b HTTP/1.1\r\n", 400),
        (b"GET / HTTP/2.0\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\n folded: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"GET /" + LONGEST_TARGET * b"a" + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET /" + 2 * LONGEST_TARGET * b"a", 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + LONGEST_HEAD * b"x", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + LONGEST_HEAD * b"x" + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + 2000 * b"a: b\r\n", 431),
    ],
)
def test_what_is_wrong(words: bytes, status: int) -> None:
    with pytest.raises(BadRequestError) as caught:
        take_request(bytearray(words))
    assert caught.value.status == status


@given(
    st.binary(max_size=200)
    | st.lists(st.sampled_from([b"GET", b" ", b"/", b"HTTP/1.1", b"\r\n", b"a: b"])).map(b"".join)
)
def test_whatever_comes_it_is_a_request_or_none_or_an_error(words: bytes) -> None:
    received = bytearray(words)
    for _ in range(50):
        before = len(received)
        try:
            request = take_request(received)
        except BadRequestError:
            return
        if request is None:
            return
        assert len(received) < before


def test_an_answer() -> None:
    head = Answer(HTTPStatus.NOT_FOUND, b"no\n", headers={"Allow": "GET"}).head(keeps_open=False).decode()
    lines = head.split("\r\n")
    assert lines[0] == "HTTP/1.1 404 Not Found" and lines[-2:] == ["", ""]
    assert lines[2:-2] == [
        "Content-Type: text/plain; charset=utf-8",
        "Content-Length: 3",
        "Allow: GET",
        "Connection: close",
    ]
    assert lines[1].startswith("Date: ") and lines[1].endswith(" GMT")
