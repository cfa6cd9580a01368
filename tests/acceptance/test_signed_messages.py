"""Celery's own message signing: phases and the upkeep are signed and read as the application's tasks are."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.acceptance.signed_app import CERTIFICATE, KEY
from tests.harness import Site, until

if TYPE_CHECKING:
    from pathlib import Path

APP = "tests.acceptance.signed_app"
#: Signing is set for a whole process, and would be for every other test in this one.
ENQUEUE = f"from {APP} import stage; run = stage.steps.enqueue(name='a'); stage.runs.ledger.publisher.flush()"


def certify(folder: Path) -> None:
    """A key, and a certificate of it that is its own authority."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "the tests")])
    yesterday = datetime.now(UTC) - timedelta(days=1)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(yesterday)
        .not_valid_after(yesterday + timedelta(days=365))
        .sign(key, hashes.SHA256())
    )
    (folder / CERTIFICATE).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / KEY).write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def content_types(site: Site) -> list[str]:
    """What the messages of phases that wait in the broker say that they are."""
    with redis.Redis.from_url(site.told["broker"]) as client:
        return [json.loads(each)["content-type"] for each in client.lrange("celery", 0, -1)]


@pytest.mark.site(phases={"second": {"queue": "other"}})
def test_phases_and_upkeep_run_in_an_application_that_signs_its_messages(redis_site: Site):
    """
    INVARIANT: a worker that takes signed messages only runs every phase and the upkeep, and nothing unsigned.

    Breaks if a task of runclaim's has a serializer of its own: workers would refuse its messages.
    """
    certify(redis_site.folder)
    unsigned = redis_site.enqueue("unsigned")
    redis_site.stage.runs.ledger.publisher.flush()
    enqueued = redis_site.start("enqueue", [sys.executable, "-c", ENQUEUE])
    assert 0 == enqueued.wait(60), enqueued.tail
    sent = content_types(redis_site)
    worker = redis_site.worker(module=APP, queues="celery,other", concurrency=1)
    run = redis_site.stage.steps.find("a")
    redis_site.ended(run)
    refused = len(redis_site.starts(unsigned))
    redis_site.beat(module=APP)
    # Its message was refused; the upkeep, signed, sends it once more.
    redis_site.ended(unsigned)
    until(lambda: "runclaim.rescue" in worker.text, "a rescue", so_far=redis_site.story)

    assert ["application/data", "application/json"] == sorted(sent)
    assert 0 == refused
    assert [1, 1, 1] == [len(redis_site.starts(run, phase)) for phase in ("first", "second", "third")]
