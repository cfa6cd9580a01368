"""
From inputs to runs, in a transaction of their own or in the application's.

A message goes out only after the commit: a worker that hears of a run can read it.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from sqlalchemy.orm import Session, scoped_session
from sqlalchemy.util import await_only

from runclaim import tracing
from runclaim.errors import InputError
from runclaim.flows.client.after_commit import after_commit
from runclaim.flows.client.application_sessions import untranslated
from runclaim.flows.client.enqueue import Enqueue, NewRuns, Recover, Rerun, make_runs
from runclaim.flows.client.handle import Run
from runclaim.flows.client.run_source import RunSource

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session

    from runclaim.flows.client.access import LedgerAccess
    from runclaim.flows.client.after_commit import Pending
    from runclaim.flows.client.new_run import Options
    from runclaim.flows.declare.declared_flow import DeclaredFlow
    from runclaim.ledger.enqueue import Enqueued
    from runclaim.ledger.new_run import NewRun

    AnySession = Session | scoped_session[Session]
    AnyAsyncSession = AsyncSession | async_scoped_session[AsyncSession]

InputT = TypeVar("InputT")


class Enqueuer(Generic[InputT]):
    """A flow with options, ready to enqueue; see `Flow.using`."""

    def __init__(
        self, flow: DeclaredFlow[InputT], access: LedgerAccess, options: Options, *, project: str | None = None
    ) -> None:
        self._flow, self._access, self._options, self._project = flow, access, options, project

    def _change(self, wanted: Sequence[NewRun]) -> NewRuns:
        """How the runs of one call are made."""
        if self._options.run_id is not None:
            return Recover(wanted)
        return Rerun(wanted) if self._options.rerun else Enqueue(wanted)

    def enqueue(self, value: InputT | None = None, /, *, session: AnySession | None = None, **fields: Any) -> Run:
        """See `Flow.enqueue`."""
        return self.enqueue_many([self._given(value, fields)], session=session)[0]

    def enqueue_many(
        self, values: Iterable[InputT | Mapping[str, Any]], *, session: AnySession | None = None
    ) -> list[Run]:
        """See `Flow.enqueue_many`."""
        self._access.require_open()
        with self._span():
            wanted = self._new_runs(values)
            if not wanted:
                return []
            if len(wanted) > 1 and self._options.run_id is not None:
                raise InputError("run_id", f"names one run, but {len(wanted)} inputs were given")
            if session is None:
                return self._handles(make_runs(self._access, self._change(wanted)))
            return self._handles(*self._join(_plain(session), self._change(wanted)))

    async def aenqueue(
        self, value: InputT | None = None, /, *, session: AnyAsyncSession | None = None, **fields: Any
    ) -> Run:
        """See `Flow.aenqueue`."""
        with self._span():
            change = self._change([self.new_run(self._given(value, fields))])
            if session is None:
                return self._handles(await asyncio.to_thread(make_runs, self._access, change))[0]
            inside: AsyncSession = session.registry() if hasattr(session, "registry") else session
            own_place = await self._own_place(inside)
            loop = asyncio.get_running_loop()
            return self._handles(*await inside.run_sync(lambda inner: self._join(inner, change, loop, own_place)))[0]

    def _span(self) -> tracing.Span:
        """What the runs carry, so that their spans are linked with their enqueuer."""
        name = self._flow.name
        return tracing.Span(f"enqueue {name}", kind="PRODUCER", attributes={"runclaim.flow": name})

    async def _own_place(self, session: AsyncSession) -> str | None:
        """Where the ledger is, if that is to be compared; no other caller waits while it is asked."""
        own = self._access.own_sessions
        if await session.run_sync(lambda inner: own.are_known(inner.connection())):
            return None
        await session.run_sync(lambda inner: own.require_kind(inner.connection()))
        return await asyncio.to_thread(own.own_place)

    def _join(
        self,
        session: Session,
        change: NewRuns,
        loop: asyncio.AbstractEventLoop | None = None,
        own_place: str | None = None,
    ) -> tuple[list[Enqueued], Pending]:
        """Make the runs in the session's transaction; ring once it has committed."""
        own = self._access.own_sessions
        conn = session.connection()
        with untranslated(conn):
            if not own.are_known(conn):
                own.require_kind(conn)
                own.admit(conn, own_place or own.own_place())
            with own.in_schema(conn):
                made = change.work(conn)

        publish = partial(change.publish, self._access, made)

        def ring() -> None:
            if loop is None:
                publish()
                return
            published = loop.run_in_executor(None, publish)
            if getattr(self._access.publisher, "is_eager", False):
                await_only(published)

        return made, after_commit(session, ring)

    def _given(self, value: InputT | None, fields: dict[str, Any]) -> InputT | dict[str, Any]:
        if value is not None and fields:
            raise InputError("input", f"is given twice, as one value and as {', '.join(fields)}; give one of the two")
        return fields if value is None else value

    def _handles(self, made: Sequence[Enqueued], pending: Pending | None = None) -> list[Run]:
        handles = [Run(self._access, found.run_id, self._flow, created=found.created) for found in made]
        for each in handles:
            each.pending = pending
        return handles

    def new_run(self, given: InputT | Mapping[str, Any]) -> NewRun:
        """The run that an input stands for; nothing is written. Raises: InputError."""
        return self._new_runs([given])[0]

    def _new_runs(self, given: Iterable[InputT | Mapping[str, Any]]) -> list[NewRun]:
        source = RunSource.declared(self._flow, self._access, self._access.headers_of)
        trace = tracing.carrier()
        return [source.new_run(each, self._options, project=self._project, trace_context=trace) for each in given]


def _plain(session: Any) -> Session:
    """The session itself. Raises: InputError if it is not one."""
    # A scoped_session, such as Flask-SQLAlchemy's, stands for the session of this thread.
    found = session() if isinstance(session, scoped_session) else session
    if not isinstance(found, Session):
        raise InputError("session", f"is a {type(found).__name__}; pass a Session, or an AsyncSession to aenqueue")
    return found
