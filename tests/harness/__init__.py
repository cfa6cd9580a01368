"""
Real Celery processes around one broker and one ledger, for the acceptance and the fault tests.

`Site` is what a test works with; `tests.harness.app` is the application its workers run. What a site's runs did is
told from outside the ledger: by the rows its bodies hand over, and by the file in which each body's start is a line.
"""

from tests.harness.app import Stage, Work, build
from tests.harness.process import Process
from tests.harness.site import Site
from tests.harness.until import until

__all__ = ["Process", "Site", "Stage", "Work", "build", "until"]
