"""The API as an ASGI application: from a request to the service, and back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from secrets import token_hex
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from reconciler.api import openapi, requests
from reconciler.api.broadcast import Broadcaster, Mailbox
from reconciler.api.endpoints import Call, Endpoint, Kind, Work
from reconciler.api.forms import listing
from reconciler.api.metrics import CONTENT_TYPE as METRICS_TYPE
from reconciler.api.metrics import Counters
from reconciler.api.problems import CONTENT_TYPE as PROBLEM_TYPE
from reconciler.api.problems import HttpProblemError, to_problem
from reconciler.api.routes import ENDPOINTS
from reconciler.api.service import Service
from reconciler.api.streams import EventStream, StreamReporter
from reconciler.lib.errors import BangerError, CancelledError, ErrorClass
from reconciler.model.events import Event

QUICK_THREADS = 16
CHANGES = 64
WAITS = 64
READERS = 1024
_STREAM_TYPE = "text/event-stream"


class Api:
    """Answers requests on the thread of the event loop, and works on threads of its own.

    Changes, waits and short questions have limits of their own: what takes long leaves room for what does not.
    """

    def __init__(self, service: Service, counters: Counters, broadcaster: Broadcaster) -> None:
        self._service = service
        self._counters = counters
        self._broadcaster = broadcaster
        self._loop = asyncio.get_running_loop()
        self._quick = ThreadPoolExecutor(QUICK_THREADS, "api")
        # A pool hands over to an idle thread at once; these limits are kept before it, so nothing queues in it.
        self._long = ThreadPoolExecutor(CHANGES + WAITS, "api-long")
        self._free = {Kind.CHANGE: CHANGES, Kind.WAIT: WAITS}

    def close(self) -> None:
        """Takes no new work; what runs is not waited for."""
        self._quick.shutdown(wait=False, cancel_futures=True)
        self._long.shutdown(wait=False, cancel_futures=True)

    def application(self) -> ASGIApp:
        """The routes, ready to be served."""
        routes = [
            Route(path, _ByMethod({e.method: partial(self._answer, e) for e in ENDPOINTS if e.path == path}))
            for path in dict.fromkeys(endpoint.path for endpoint in ENDPOINTS)
        ]
        routes.append(Route(openapi.PATH, _ByMethod({"GET": self._description})))
        app = Starlette(routes=routes, exception_handlers={HTTPException: _not_here})
        app.router.redirect_slashes = False
        return app

    async def _answer(self, endpoint: Endpoint, request: Request) -> ASGIApp:
        headers: dict[str, str] = {}
        try:
            operation = _operation(request)
            headers[openapi.OPERATION_HEADER] = operation
            query = requests.parameters(request.query_params, endpoint.query)
            for name in endpoint.required - query.keys():
                raise HttpProblemError(422, f"parameter {name} is missing")
            for name, value in request.path_params.items():
                requests.validate(value, endpoint.path_schema, name)
            body = await requests.read_body(request) if endpoint.body is not None else None
            call = Call(
                service=self._service,
                counters=self._counters,
                operation=operation,
                path=request.path_params,
                query=query,
            )
            content_type = request.headers.get("content-type", "")
            if endpoint.kind is Kind.EVENTS:
                return await self._events(endpoint, call, request, headers)
            made = await self._on_quick(partial(_handle, endpoint, call, body, content_type))
            if endpoint.kind.streams:
                return self._stream(endpoint, made, headers)
            if endpoint.kind is Kind.TEXT:
                return Response(made, media_type=METRICS_TYPE, headers=headers)
            return Response(made, media_type="application/json", headers=headers)
        except Exception as error:
            return _problem(error, headers)

    async def _on_quick(self, work: Callable[[], Any]) -> Any:
        return await self._loop.run_in_executor(self._quick, _tamed, work)

    def _stream(self, endpoint: Endpoint, work: Work, headers: dict[str, str]) -> EventStream:
        kind = endpoint.kind
        if self._free[kind] == 0:
            raise _busy("operations")
        self._free[kind] -= 1
        mailbox = Mailbox()
        reporter = StreamReporter(self._loop, mailbox, abandon=kind is Kind.WAIT)
        # Begun here and now: from this line on it does not depend on its client.
        self._long.submit(_work, work, reporter).add_done_callback(lambda _: self._release(kind))
        return EventStream(mailbox, headers, beat=True)

    def _release(self, kind: Kind) -> None:
        try:
            self._loop.call_soon_threadsafe(self._one_more, kind)
        except RuntimeError:
            pass  # the server has ended

    def _one_more(self, kind: Kind) -> None:
        self._free[kind] += 1

    async def _events(self, endpoint: Endpoint, call: Call, request: Request, headers: dict[str, str]) -> ASGIApp:
        streams = _STREAM_TYPE in request.headers.get("accept", "")
        if not streams:
            if call.query.get("follow"):
                raise HttpProblemError(422, "events are followed as a stream", hint=f"send Accept: {_STREAM_TYPE}")
            return Response(
                await self._on_quick(partial(_event_list, endpoint, call)),
                media_type="application/json",
                headers=headers,
            )
        if "last-event-id" in request.headers:
            # What a browser sends when it connects again: HTML standard, server-sent events.
            last = QueryParams({"after": request.headers["last-event-id"]})
            call = replace(call, query={**call.query, **requests.parameters(last, {"after": endpoint.query["after"]})})
        if len(self._broadcaster) >= READERS:
            raise _busy("readers")
        past = partial(self._on_quick, partial(endpoint.handler, call))
        return _Following(self._broadcaster, call.query, past, headers)

    async def _description(self, request: Request) -> ASGIApp:
        return Response(await self._on_quick(lambda: _json(openapi.document())), media_type="application/json")


class _Following:
    """Joins before the past is read, so that nothing falls between past and future; leaves whatever happens."""

    def __init__(
        self,
        broadcaster: Broadcaster,
        query: Mapping[str, Any],
        past: Callable[[], Awaitable[list[Event]]],
        headers: dict[str, str],
    ) -> None:
        self._broadcaster = broadcaster
        self._query = query
        self._past = past
        self._headers = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        reader = self._broadcaster.join(self._query.get("environment"), self._query.get("after"))
        try:
            try:
                past = await self._past()
            except Exception as error:
                await _problem(error, self._headers)(scope, receive, send)
                return
            self._broadcaster.begin(reader, past)
            if not self._query.get("follow", True):
                reader.mailbox.close()
            await EventStream(reader.mailbox, self._headers, beat=False)(scope, receive, send)
        finally:
            self._broadcaster.leave(reader)


class _ByMethod:
    """One path with an answer for each of its methods; any other gets 405 with the list of them (RFC 9110, 15.5.6)."""

    def __init__(self, answers: dict[str, Callable[[Request], Any]]) -> None:
        self._answers = answers
        if "GET" in answers:
            self._answers = {**answers, "HEAD": answers["GET"]}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        answer = self._answers.get(request.method)
        if answer is None:
            raise HTTPException(405, headers={"Allow": ", ".join(sorted(self._answers))})
        await (await answer(request))(scope, receive, send)


def _handle(endpoint: Endpoint, call: Call, body: bytes | None, content_type: str) -> Any:
    """On a thread: the body is parsed and checked, the handler asked, its answer written."""
    if body is not None and endpoint.body is not None:
        value = {} if endpoint.body_optional and not body else requests.parse(body, content_type)
        requests.validate(value, endpoint.body, "body")
        call = replace(call, body=value)
    answer = endpoint.handler(call)
    return _json(answer) if endpoint.kind is Kind.QUICK else answer


def _event_list(endpoint: Endpoint, call: Call) -> bytes:
    return _json(listing([event.to_json() for event in endpoint.handler(call)]))


def _tamed(work: Callable[[], Any]) -> Any:
    """An interrupt must not travel into the event loop, which it would end."""
    try:
        return work()
    except (KeyboardInterrupt, SystemExit):
        raise CancelledError from None


def _work(work: Work, reporter: StreamReporter) -> None:
    try:
        result = _tamed(partial(work, reporter))
    except Exception as error:
        reporter.error(error)
    else:
        reporter.result(result)


def _operation(request: Request) -> str:
    given = request.headers.get(openapi.OPERATION_HEADER)
    if given is None:
        return token_hex(6)
    requests.validate(given, openapi.OPERATION, openapi.OPERATION_HEADER)
    return given


def _busy(what: str) -> BangerError:
    return BangerError(f"too many {what} at once", hint="try again in a moment", error_class=ErrorClass.RETRYABLE)


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def _problem(error: Exception, headers: dict[str, str]) -> Response:
    problem = to_problem(error)
    return Response(_json(problem), problem["status"], headers, PROBLEM_TYPE)


async def _not_here(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    cause = (
        f"{request.method} is no method of {request.url.path}" if error.status_code == 405 else "there is nothing here"
    )
    return _problem(HttpProblemError(error.status_code, cause, hint=f"GET {openapi.PATH}"), dict(error.headers or {}))
