"""
What you annotate with, are handed, or make yourself, in addition to the names of `runclaim` and of `runclaim.errors`.

These are the stable places: what is elsewhere in the package moves from release to release.
"""

from __future__ import annotations

from runclaim.codec import Codec, CodecFailed
from runclaim.config import Config
from runclaim.events import EventType
from runclaim.flows.actions.action import Action
from runclaim.flows.actions.hooks import HookEvent
from runclaim.flows.body.drafts import Finding
from runclaim.flows.body.sessions import NamedSession, Session
from runclaim.flows.client.enqueuer import Enqueuer
from runclaim.flows.declare.phase import Phase
from runclaim.flows.flow import Flow
from runclaim.flows.inbound.route import OutsideEvent, Routed
from runclaim.flows.inbound.webhook import Delivery, DeliveryOutcome, Received, Webhook
from runclaim.flows.plain_calls import Claimed
from runclaim.ledger.actions.decide import ActionView
from runclaim.ledger.body.findings import FindingView
from runclaim.ledger.body.sessions import SessionView
from runclaim.ledger.read import EventView, RunView
from runclaim.listeners.listener import Event
from runclaim.states import PhaseStatus

__all__ = [
    "Action",
    "ActionView",
    "Claimed",
    "Codec",
    "CodecFailed",
    "Config",
    "Delivery",
    "DeliveryOutcome",
    "Enqueuer",
    "Event",
    "EventType",
    "EventView",
    "Finding",
    "FindingView",
    "Flow",
    "HookEvent",
    "NamedSession",
    "OutsideEvent",
    "Phase",
    "PhaseStatus",
    "Received",
    "Routed",
    "RunView",
    "Session",
    "SessionView",
    "Webhook",
]
