"""The flow that users hold: a declared flow with the ledger at hand, to enqueue its runs and to find them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from runclaim.errors import InputError
from runclaim.flows.client.enqueuer import Enqueuer
from runclaim.flows.client.handle import Run
from runclaim.flows.client.new_run import Options
from runclaim.flows.declare.declared_flow import DeclaredFlow, FlowOptions
from runclaim.flows.declare.secret_references import BUILT_IN
from runclaim.flows.inbound.route import Route
from runclaim.keys import check_name
from runclaim.ledger.run_keys import find_runs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import timedelta

    from runclaim.flows.client.access import LedgerAccess
    from runclaim.flows.client.enqueuer import AnyAsyncSession, AnySession
    from runclaim.flows.declare.declared_flow import OnPhase
    from runclaim.flows.declare.secret_references import Resolver
    from runclaim.flows.inbound.route import OutsideEvent, Routed

InputT = TypeVar("InputT")


class Flow(DeclaredFlow[InputT]):
    """
    A declared sequence of phases. Made by `Runclaim.flow`.

    The ledger is reached when a run is made or looked for, so a declared flow is cheap and safe to import.
    """

    def __init__(
        self,
        name: str,
        input_type: type[InputT],
        options: FlowOptions[InputT],
        *,
        access: LedgerAccess,
        resolvers: Mapping[str, Resolver] = BUILT_IN,
        on_phase: OnPhase,
    ) -> None:
        super().__init__(name, input_type, options, actions=access.actions, resolvers=resolvers, on_phase=on_phase)
        self._access = access

    def using(
        self,
        *,
        delay: timedelta | None = None,
        priority: int | None = None,
        project: str | None = None,
        rerun: bool = False,
        run_id: str | None = None,
    ) -> Enqueuer[InputT]:
        """
        Enqueue with options: `flow.using(delay=timedelta(minutes=5)).enqueue(…)`.

        `priority` goes to the broker (0 to 9; higher first on RabbitMQ, lower first on Redis, as in Celery; without
        one `task_default_priority` holds). `rerun` makes a new run also for a key that has one, under its next number,
        and supersedes the older one. `run_id` inserts the run under that id or raises RunExists; it never finds one.
        """
        self.require_phases()
        options = Options(delay=delay, priority=priority, rerun=rerun, run_id=run_id)
        if project is not None:
            check_name("project", project)
        return Enqueuer(self, self._access, options, project=project)

    def enqueue(self, value: InputT | None = None, /, *, session: AnySession | None = None, **fields: Any) -> Run:
        """
        Make a run of the input, or find the run its key already has.

        Give the input as one value or by its fields. With `session` the run is made in the application's own
        transaction and published after its commit. Raises: InputError, KeyConflict, LedgerUnavailable; nothing
        is written then. A broker that does not answer is not an error: the run is queued in the ledger.
        """
        return self.using().enqueue(value, session=session, **fields)

    def enqueue_many(
        self, values: Iterable[InputT | Mapping[str, Any]], *, session: AnySession | None = None
    ) -> list[Run]:
        """As `enqueue`, for many inputs in one transaction; the handles come in the order of the inputs."""
        return self.using().enqueue_many(values, session=session)

    async def aenqueue(
        self, value: InputT | None = None, /, *, session: AnyAsyncSession | None = None, **fields: Any
    ) -> Run:
        """As `enqueue`, without blocking the event loop; `session` is an AsyncSession."""
        return await self.using().aenqueue(value, session=session, **fields)

    def get(self, run_id: str) -> Run:
        """A handle on an existing run of this flow; nothing is read yet."""
        return Run(self._access, run_id, self)

    def find(self, key: str, *, project: str | None = None) -> Run | None:
        """
        The run of a key, given as the text that people read; `None` when there is none, or it was purged.

        Raises: InputError when the text could be the key of two runs: `"a:b" + "c"`, `"a" + "b:c"`. Use their ids.
        """
        hashes = [each.hash for each in self.naming.readings(key)]
        namespace = f"{project or self._access.config.project}/{self.name}"
        found = self._access.ask(lambda conn: find_runs(conn, namespace, hashes))
        if len(found) > 1:
            raise InputError("key", f"names several runs of {self.name} ({', '.join(found)}); use the id of one")
        return self.get(found[0]) if found else None

    def route(self, event: OutsideEvent[InputT]) -> Routed:
        """
        Start the phase that an outside event calls for, in the run of its input's key, which is made if need be.

        An existing run keeps the state of its phases; a phase that is active or complete is left alone; an event for
        a phase that is not reached yet is kept for it. Raises: InputError, KeyConflict, LedgerUnavailable.
        """
        return Route.of(self._access, self, event).take(self._access, self)
