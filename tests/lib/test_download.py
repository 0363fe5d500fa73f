"""Downloads: the right bytes or none, in bounded time and space, whatever the server does."""

from __future__ import annotations

import hashlib
import random
import re
from pathlib import Path

import pytest

from reconciler.lib import cancel
from reconciler.lib import download as module
from reconciler.lib.download import download
from reconciler.lib.errors import BangerError, CancelledError, ErrorClass
from reconciler.lib.progress import Silent
from reconciler.lib.units import MIB
from tests.lib.misbehaving import Answer, reply, rest_of, serving, stall

BODY = random.Random(1).randbytes(300_000)
SHA256 = hashlib.sha256(BODY).hexdigest()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits are counted, not waited for; a silent server is given up at once; the host's proxies do not count."""
    monkeypatch.setattr(module, "STALL_SECONDS", 0.3)
    monkeypatch.setattr(cancel, "pause", PAUSES.append)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    PAUSES.clear()


PAUSES: list[float] = []


def fetch(url: str, folder: Path, *, sha256: str = SHA256, limit: int = MIB) -> bytes:
    download(url, sha256, folder / "file", Silent(), limit=limit)
    return (folder / "file").read_bytes()


def refused(url: str, folder: Path, *, sha256: str = SHA256, limit: int = MIB) -> BangerError:
    """The error, after which nothing may be left."""
    with pytest.raises(BangerError) as caught:
        fetch(url, folder, sha256=sha256, limit=limit)
    assert list(folder.iterdir()) == []
    return caught.value


def test_a_file_comes_whole(tmp_path: Path) -> None:
    with serving(reply(BODY)) as server:
        assert fetch(server.url, tmp_path) == BODY


def test_without_a_length_too(tmp_path: Path) -> None:
    def answer(connection, request) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + BODY)

    with serving(answer) as server:
        assert fetch(server.url, tmp_path) == BODY


def test_what_broke_off_is_taken_up_where_it_broke(tmp_path: Path) -> None:
    with serving(reply(BODY[:100_000], length=len(BODY), ETag='"a"'), rest_of(BODY, '"a"')) as server:
        assert fetch(server.url, tmp_path) == BODY
        assert server.requests[1]["range"] == "bytes=100000-"
        assert server.requests[1]["if-range"] == '"a"'


@pytest.mark.parametrize("etag", ['"a"', 'W/"a"', None])
def test_a_file_that_changed_or_may_have_is_begun_anew(tmp_path: Path, etag: str | None) -> None:
    headers = {"ETag": etag} if etag else {}
    with serving(reply(b"x" * 100_000, length=len(BODY), **headers), rest_of(BODY, '"b"')) as server:
        assert fetch(server.url, tmp_path) == BODY
        assert len(server.requests) == 2
        assert ("range" in server.requests[1]) == (etag == '"a"')


def test_a_wrong_range_is_not_put_together(tmp_path: Path) -> None:
    wrong = reply(BODY[5:], status="206 Partial Content", Content_Range=f"bytes 5-{len(BODY) - 1}/{len(BODY)}")
    with serving(reply(BODY[:100_000], length=len(BODY), ETag='"a"'), wrong, rest_of(BODY, '"a"')) as server:
        error = None
        try:
            assert fetch(server.url, tmp_path) == BODY
        except BangerError as problem:
            error = problem
        assert error is None or (error.error_class is ErrorClass.RETRYABLE and list(tmp_path.iterdir()) == [])


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (stall, "timed out"),
        (reply(BODY[:1000], length=len(BODY)), "broke off"),
        (reply(status="500 Broken"), "answers 500 Broken"),
        (reply(status="503 Busy"), "answers 503 Busy"),
        (reply(status="429 Slower", Retry_After="7"), "answers 429 Slower, and to come back in 7 s"),
        (lambda connection, request: None, "closed connection"),
    ],
    ids=["stall", "truncation", "500", "503", "429", "nothing"],
)
def test_what_may_pass_is_tried_again_a_few_times(tmp_path: Path, answer: Answer, message: str) -> None:
    with serving(answer) as server:
        error = refused(server.url, tmp_path)
        assert error.error_class is ErrorClass.RETRYABLE
        assert 2 <= len(server.requests) <= module.MAX_TRIES
        assert re.search(message, error.cause), error.cause
    with serving(answer, reply(BODY)) as server:
        assert fetch(server.url, tmp_path) == BODY


def test_a_server_is_given_the_time_that_it_asks_for(tmp_path: Path) -> None:
    with serving(reply(status="429 Slower", Retry_After="7"), reply(BODY)) as server:
        assert fetch(server.url, tmp_path) == BODY
    assert PAUSES == [7.0]


@pytest.mark.parametrize("wait", ["3600", "99999999"])
def test_but_not_any_time(tmp_path: Path, wait: str) -> None:
    with serving(reply(status="429 Slower", Retry_After=wait)) as server:
        error = refused(server.url, tmp_path)
        assert len(server.requests) == 1 and PAUSES == []
    assert error.error_class is ErrorClass.RETRYABLE and f"in {wait} s" in error.cause


@pytest.mark.parametrize("status", ["404 Not Found", "403 Forbidden", "410 Gone", "204 No Content"])
def test_what_is_not_there_is_asked_for_once(tmp_path: Path, status: str) -> None:
    with serving(reply(status=status)) as server:
        error = refused(server.url, tmp_path)
        assert len(server.requests) == 1
    assert error.error_class is ErrorClass.TERMINAL and f"answers {status}" in error.cause and server.url in error.cause


def test_another_file_is_refused(tmp_path: Path) -> None:
    with serving(reply(b"evil")) as server:
        error = refused(server.url, tmp_path)
    assert error.error_class is ErrorClass.TERMINAL
    assert hashlib.sha256(b"evil").hexdigest() in error.cause and SHA256 in error.cause


def test_a_length_beyond_the_limit_is_refused_unread(tmp_path: Path) -> None:
    with serving(reply(b"", length=5 * MIB)) as server:
        assert "has 5.0 MiB, and at most 1.0 MiB are taken" in refused(server.url, tmp_path).cause


def test_more_than_the_limit_is_refused_without_a_length(tmp_path: Path) -> None:
    def endless(connection, request) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            connection.sendall(bytes(65536))

    with serving(endless) as server:
        assert "at most 1.0 MiB are taken" in refused(server.url, tmp_path).cause


def test_what_does_not_fit_on_the_disk_is_refused_unread(tmp_path: Path) -> None:
    with serving(reply(b"", length=1 << 59)) as server:
        assert "are free" in refused(server.url, tmp_path, limit=1 << 60).cause


def test_redirects_are_followed_and_counted(tmp_path: Path) -> None:
    with serving(reply(status="302 Found", Location="/other"), reply(BODY)) as server:
        assert fetch(server.url, tmp_path) == BODY
    with serving(reply(status="302 Found", Location="/again")) as server:
        (tmp_path / "file").unlink()
        assert "leads on more than 5 times" in refused(server.url, tmp_path).cause
        assert len(server.requests) == module.MAX_REDIRECTS + 1


@pytest.mark.parametrize("to", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://x/"])
def test_a_redirect_leads_to_no_other_kind_of_place(tmp_path: Path, to: str) -> None:
    with serving(reply(status="302 Found", Location=to)) as server:
        assert f"leads to {to}, which is not https" in refused(server.url, tmp_path).cause


def test_https_is_never_led_to_http() -> None:
    assert module.may_lead("https://a/", "https://b/") and module.may_lead("http://a/", "https://b/")
    assert module.may_lead("http://a/", "http://b/") and not module.may_lead("https://a/", "http://b/")


def test_nobody_there_is_retryable_and_named(tmp_path: Path) -> None:
    with serving(reply()) as server:
        url = server.url
    error = refused(url, tmp_path)
    assert error.error_class is ErrorClass.RETRYABLE and url in error.cause and "refused" in error.cause


def test_a_proxy_is_used_but_not_for_what_no_proxy_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(reply(BODY)) as proxy, serving(reply(BODY)) as server:
        monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/file"))
        assert fetch("http://host.invalid/file", tmp_path) == BODY
        assert proxy.requests[0]["host"] == "host.invalid"
        (tmp_path / "file").unlink()
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert fetch(server.url, tmp_path) == BODY
        assert len(proxy.requests) == 1


def test_a_proxy_that_does_not_answer_is_told_from_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(reply()) as proxy:
        gone = proxy.url.removesuffix("/file")
    monkeypatch.setenv("http_proxy", gone)
    assert "the proxy does not answer" in refused("http://host.invalid/file", tmp_path).cause


def test_a_cancelled_one_leaves_nothing(tmp_path: Path) -> None:
    class Cancelling:
        def update(self, fraction: float | None, message: str) -> None:
            cancel.cancel()

    try:
        with serving(reply(BODY)) as server, pytest.raises(CancelledError):
            download(server.url, SHA256, tmp_path / "file", Cancelling(), limit=MIB)
    finally:
        cancel.reset()
    assert list(tmp_path.iterdir()) == []


def test_a_local_file_is_copied_and_compared(tmp_path: Path) -> None:
    (tmp_path / "a b%").write_bytes(BODY)
    into = tmp_path / "into"
    into.mkdir()
    assert fetch((tmp_path / "a b%").as_uri(), into) == BODY
    (into / "file").unlink()
    assert "has the sha256" in refused((tmp_path / "a b%").as_uri(), into, sha256="0" * 64).cause


@pytest.mark.parametrize("path", ["/dev/zero", "/etc", "/no/such"])
def test_only_a_regular_file_is_copied(tmp_path: Path, path: str) -> None:
    assert path in refused(f"file://{path}", tmp_path).cause


def test_progress_is_told_in_bytes(tmp_path: Path) -> None:
    told: list[tuple[float | None, str]] = []

    class Told:
        def update(self, fraction: float | None, message: str) -> None:
            told.append((fraction, message))

    with serving(reply(BODY)) as server:
        download(server.url, SHA256, tmp_path / "file", Told(), limit=MIB)
    assert told[-1] == (1.0, "downloading: 293.0 KiB of 293.0 KiB")
