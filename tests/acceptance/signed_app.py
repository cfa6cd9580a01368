"""The tests' application with signed messages; a key and its certificate lie in the site's folder."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tests.harness import Stage, build

KEY, CERTIFICATE = "signing.key", "signing.pem"


def signed(told: dict[str, Any]) -> Stage:
    """The application; what it reads and writes from now on is signed, in the whole process."""
    made, folder = build(told), Path(told["folder"])
    made.app.conf.update(
        task_serializer="auth",
        event_serializer="auth",
        accept_content=["auth"],
        security_key=str(folder / KEY),
        security_certificate=str(folder / CERTIFICATE),
        security_cert_store=str(folder / "*.pem"),
    )
    made.app.setup_security()
    return made


if "HARNESS" in os.environ:
    stage = signed(json.loads(os.environ["HARNESS"]))
    app = stage.app
