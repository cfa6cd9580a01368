"""Settings that would be ignored: a mistyped or misplaced name is refused instead of silently leaving the default."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final

from runclaim.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

_VARIABLE: Final = "RUNCLAIM_"
_KEY: Final = "runclaim_"
#: Variables that are not settings: of the command line, of fault tests, and of this repository's tests and benchmarks.
_OTHERS: Final = frozenset({"APP", "API_URL", "TOKEN", "FAILPOINTS", "CACHE", "SCHEMATHESIS", "SLOTS", "SOAK_SECONDS"})
_OF_TESTS: Final = ("TEST_", "BENCH", "PEERS_")
#: What Kubernetes sets in every container for a service whose name begins with `runclaim`.
_OF_SERVICES: Final = re.compile(r"(.*_)?(SERVICE_HOST|SERVICE_PORT(_.*)?|PORT(_\d+_(TCP|UDP|SCTP)(_.*)?)?)")


def refuse_unread(known: Collection[str], environ: Iterable[str], celery: Mapping[str, Any]) -> None:
    """Raises: ConfigError for a variable RUNCLAIM_… or a key runclaim_… of Celery's that names no setting."""
    for variable in sorted(environ):
        if variable.startswith(_VARIABLE) and not _is_variable(variable.removeprefix(_VARIABLE), known):
            names = [*(name.upper() for name in known), *_OTHERS]
            meant = _meant(_VARIABLE, variable.removeprefix(_VARIABLE), names)
            raise ConfigError(f"the variable {variable} is not a setting of runclaim{meant}")
    for key in sorted(str(each) for each in celery):
        # A namespace is Celery's own way: CELERY_RUNCLAIM_LEASE is read as runclaim_lease.
        namespace, found, name = key.lower().partition(_KEY)
        if not found or namespace not in {"", "celery_"}:
            continue
        if name not in known:
            raise ConfigError(f"the key {key} of Celery's configuration is not a setting{_meant(_KEY, name, known)}")
        if celery.get(f"{_KEY}{name}") is None and celery.get(key) is not None:
            raise ConfigError(f"the key {key} of Celery's configuration is ignored; write {_KEY}{name}")


def _is_variable(name: str, known: Collection[str]) -> bool:
    setting, from_file = name.lower(), name.removesuffix("_FILE").lower()
    is_other = name.removesuffix("_FILE") in _OTHERS or name.startswith(_OF_TESTS)
    return setting in known or from_file in known or is_other or _OF_SERVICES.fullmatch(name) is not None


def _meant(prefix: str, name: str, names: Collection[str]) -> str:
    close = get_close_matches(name, names, n=1)
    return f": did you mean {prefix}{close[0]}?" if close else "; docs/settings.md lists the settings"
