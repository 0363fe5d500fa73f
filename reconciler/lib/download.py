"""Files from elsewhere: taken only if they are the ones that were asked for, within bounds of size and time.

`http`, `https` and `file`. Proxies as usual (`https_proxy`, `no_proxy`), certificates as the host trusts them
(`SSL_CERT_FILE`). A connection that breaks is taken up where it broke (RFC 9110, section 14, with `If-Range`), as long
as the server still has the same file. Nothing is opened by anybody else before its hash was compared, and what does not
arrive whole is removed.
"""

from __future__ import annotations

import hashlib
import shutil
import ssl
import stat
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3.exceptions import HTTPError, LocationParseError, MaxRetryError, ProtocolError, ProxyError, SSLError

from reconciler.lib import cancel
from reconciler.lib.errors import BangerError, CancelledError, ErrorClass
from reconciler.lib.progress import Progress
from reconciler.lib.units import KIB, MIB, human_size

MAX_REDIRECTS = 5
MAX_TRIES = 5
"""How often one file is begun or taken up again."""
STALL_SECONDS = 30.0
SLOWEST = 8 * KIB
"""Bytes a second on average, once a connection is GRACE_SECONDS old: bounds the time of any download."""
GRACE_SECONDS = 60.0
LONGEST_WAIT = 60.0
"""Seconds that a server may ask us to wait (`Retry-After`, RFC 9110, section 10.2.3). Longer ones are an error."""
_CHUNK = MIB
_AGENT = {"User-Agent": "banger", "Accept-Encoding": "identity"}
_REDIRECTS = (301, 302, 303, 307, 308)
_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)


def download(url: str, sha256: str, into: Path, progress: Progress, *, limit: int) -> None:
    """Brings a file to `into`, which must not exist, and compares its hash. Nothing stays there after a failure.

    Parameters
    ----------
    url: `https://…`, `http://…`, or `file:///…`.
    sha256: of the whole file, in lower-case hex.
    limit: bytes that it may have at most.
    progress: gets the fraction of this file.

    Raises BangerError: retryable if the server did not answer, broke off or asked to wait; terminal if it does not have
    the file, or has another one.
    """
    try:
        found = _Transfer(url, into, progress, limit).run()
        if found != sha256:
            raise BangerError(
                f"{url} has the sha256 {found}, not {sha256}",
                hint="look for the reason before you change the file: somebody else may have changed what is there",
            )
    except OSError as problem:
        into.unlink(missing_ok=True)
        raise BangerError(
            f"cannot write {into.name} from {url}: {problem.strerror}", hint=f"df -h {into.parent}"
        ) from problem
    except BaseException:
        into.unlink(missing_ok=True)
        raise


def fetch(url: str, into: Path, progress: Progress, *, limit: int) -> None:
    """`download` of a file that nobody knows the hash of, for callers who have another way to tell that it is the right one.

    Raises BangerError as `download` does.
    """
    try:
        _Transfer(url, into, progress, limit).run()
    except OSError as problem:
        into.unlink(missing_ok=True)
        raise BangerError(
            f"cannot write {into.name} from {url}: {problem.strerror}", hint=f"df -h {into.parent}"
        ) from problem
    except BaseException:
        into.unlink(missing_ok=True)
        raise


class _BrokenOffError(Exception):
    """A transfer ended early, for a reason that may be over: `wait` seconds from now at the soonest."""

    def __init__(self, cause: str, wait: float = 0.0) -> None:
        super().__init__(cause)
        self.wait = wait


class _Transfer:
    """One file on its way, over as many connections as it takes."""

    def __init__(self, url: str, into: Path, progress: Progress, limit: int) -> None:
        self._url = url
        self._into = into
        self._progress = progress
        self._limit = limit
        self._hash = hashlib.sha256()
        self._have = 0
        self._total: int | None = None
        self._validator: str | None = None

    def run(self) -> str:
        """Its hash, in hex."""
        with self._into.open("xb") as self._file:
            if urlsplit(self._url).scheme == "file":
                self._copy()
            else:
                self._fetch()
        return self._hash.hexdigest()

    def _copy(self) -> None:
        source = Path(unquote(urlsplit(self._url).path))
        try:
            status = source.stat()
            if not stat.S_ISREG(status.st_mode):  # asked first: opening a device can act
                raise BangerError(f"{source} is not a regular file")
            file = source.open("rb")
        except OSError as problem:
            raise BangerError(f"cannot read {source}: {problem.strerror}", hint=f"ls -l {source}") from None
        with file:
            self._announce(status.st_size)
            while piece := file.read(_CHUNK):
                self._take(piece)

    def _fetch(self) -> None:
        for tried in range(1, MAX_TRIES + 1):
            before = self._have
            try:
                self._connect()
                return
            except _BrokenOffError as problem:
                if tried == MAX_TRIES or problem.wait > LONGEST_WAIT or (tried > 1 and self._have == before):
                    raise BangerError(
                        f"cannot fetch {self._url}: {problem}" + self._so_far(), error_class=ErrorClass.RETRYABLE
                    ) from problem
                self._progress.update(self._fraction, f"{problem}; trying again")
                cancel.pause(max(problem.wait, 0.5 * tried))
                if cancel.cancelled():
                    raise CancelledError from None

    def _connect(self) -> None:
        headers = dict(_AGENT)
        if self._have and self._validator:
            headers |= {"Range": f"bytes={self._have}-", "If-Range": self._validator}
        elif self._have:
            self._restart()
        response = _open(self._url, headers)
        try:
            if response.status == 206 and "Range" in headers:
                self._require_range(response.headers.get("Content-Range", ""))
            elif response.status == 200:
                self._restart()
                self._announce(_length(response))
                etag = response.headers.get("ETag", "")
                # A weak validator does not promise the same bytes (RFC 9110, section 13.1.5).
                self._validator = etag if etag and not etag.startswith("W/") else None
            else:
                raise _refusal(self._url, response)
            for piece in _pieces(response):
                self._take(piece)
        finally:
            response.close()
        if self._total is not None and self._have < self._total:
            raise _BrokenOffError(f"it ended at byte {self._have} of {self._total}")

    def _require_range(self, told: str) -> None:
        first = told.removeprefix("bytes ").partition("-")[0]
        if first != str(self._have):
            self._validator = None  # the next try begins anew
            raise _BrokenOffError(f"the server sent {told!r} where byte {self._have} was next")

    def _restart(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._hash, self._have, self._total = hashlib.sha256(), 0, None

    def _announce(self, total: int | None) -> None:
        """The size that it is said to have. Raises BangerError if that is too much, for us or for the disk."""
        self._total = total
        if total is None:
            return
        if total > self._limit:
            raise self._too_large(f"has {human_size(total)}")
        free = shutil.disk_usage(self._into.parent).free
        if total > free:
            raise BangerError(
                f"{self._url} has {human_size(total)}, and {human_size(free)} are free",
                hint=f"df -h {self._into.parent}",
            )

    def _take(self, piece: bytes) -> None:
        if cancel.cancelled():
            raise CancelledError
        self._have += len(piece)
        if self._have > self._limit:
            raise self._too_large("has more")
        self._file.write(piece)
        self._hash.update(piece)
        of = f" of {human_size(self._total)}" if self._total else ""
        self._progress.update(self._fraction, f"downloading: {human_size(self._have)}{of}")

    @property
    def _fraction(self) -> float | None:
        return min(self._have / self._total, 1.0) if self._total else None

    def _too_large(self, what: str) -> BangerError:
        return BangerError(f"{self._url} {what}, and at most {human_size(self._limit)} are taken")

    def _so_far(self) -> str:
        return f" (after {human_size(self._have)})" if self._have else ""


def _open(url: str, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
    """The answer to a GET, after redirects; its body is not read yet."""
    at = url
    for _ in range(MAX_REDIRECTS + 1):
        if cancel.cancelled():
            raise CancelledError
        response = _get(url, at, headers)
        if response.status not in _REDIRECTS or not (to := response.headers.get("Location")):
            return response
        response.close()
        there = urljoin(at, to)
        if not may_lead(at, there):
            raise BangerError(
                f"{url} leads to {there}, which is not https", hint="name the place itself if you trust it"
            )
        at = there
    raise BangerError(f"{url} leads on more than {MAX_REDIRECTS} times, at last to {at}")


def may_lead(here: str, there: str) -> bool:
    """Whether a redirect from one address to another is followed: never to what is less protected."""
    return urlsplit(there).scheme == "https" or urlsplit(here).scheme == urlsplit(there).scheme == "http"


def _get(url: str, at: str, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
    try:
        return _pool(at).request(
            "GET",
            at,
            headers=headers,
            redirect=False,
            retries=False,
            preload_content=False,
            timeout=urllib3.Timeout(connect=STALL_SECONDS / 2, read=STALL_SECONDS),
        )
    except LocationParseError as problem:
        raise BangerError(f"{at} is not an address that can be asked: {problem}") from None
    except (HTTPError, ssl.SSLError) as problem:
        reason = problem.reason if isinstance(problem, MaxRetryError) and problem.reason else problem
        if isinstance(reason, (SSLError, ssl.SSLError)) and "CERTIFICATE_VERIFY_FAILED" in str(reason):
            raise BangerError(
                f"cannot fetch {url}: {_words(reason)}",
                hint="add the authority's certificate to the host (update-ca-certificates(8)), or name it in SSL_CERT_FILE",
            ) from None
        what = "the proxy does not answer: " if isinstance(reason, ProxyError) else ""
        raise _BrokenOffError(what + _words(reason)) from None


@cache
def _trust() -> ssl.SSLContext:
    """The authorities that the host trusts, read once: it takes as long as a short download."""
    return ssl.create_default_context()


def _pool(url: str) -> urllib3.PoolManager:
    parts = urlsplit(url)
    context = _trust() if parts.scheme == "https" else None
    proxy = getproxies().get(parts.scheme) or getproxies().get("all")
    if proxy and not proxy_bypass(parts.hostname or ""):
        credentials = urlsplit(proxy)
        extra = (
            urllib3.make_headers(
                proxy_basic_auth=f"{unquote(credentials.username)}:{unquote(credentials.password or '')}"
            )
            if credentials.username
            else None
        )
        return urllib3.ProxyManager(proxy, proxy_headers=extra, ssl_context=context)
    return urllib3.PoolManager(ssl_context=context)


def _pieces(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    began, got = time.monotonic(), 0
    try:
        # read1 returns what has come: a slow sender is noticed, and a piece that came is kept when the next does not.
        while piece := response.read1(_CHUNK):
            got += len(piece)
            yield piece
            spent = time.monotonic() - began
            if spent > GRACE_SECONDS and got < SLOWEST * spent:
                raise _BrokenOffError(f"it sends less than {human_size(SLOWEST)} a second")
    except ProtocolError:
        raise _BrokenOffError("the connection broke off") from None
    except (HTTPError, ssl.SSLError, ConnectionError, TimeoutError) as problem:
        raise _BrokenOffError(_words(problem)) from None


def _refusal(url: str, response: urllib3.BaseHTTPResponse) -> Exception:
    what = f"the server answers {response.status} {response.reason or ''}".strip()
    if response.status not in _TRANSIENT:
        return BangerError(f"cannot fetch {url}: {what}", replay=f"curl -fLO {url}")
    wait = response.headers.get("Retry-After", "")
    seconds = float(wait) if wait.isascii() and wait.isdigit() and len(wait) < 9 else 0.0
    return _BrokenOffError(what + (f", and to come back in {wait} s" if seconds else ""), seconds)


def _length(response: urllib3.BaseHTTPResponse) -> int | None:
    told = response.headers.get("Content-Length", "")
    return int(told) if told.isascii() and told.isdigit() and len(told) < 19 else None


def _words(problem: BaseException) -> str:
    """What a library says, without the names of its objects."""
    text = str(problem).rpartition(">: ")[2] or type(problem).__name__
    return text if len(text) < 300 else text[:300]
