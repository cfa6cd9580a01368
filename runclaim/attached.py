"""From a Celery app, or the name of its module, to the Runclaim that is attached to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celery.app.utils import find_app

from runclaim.errors import ConfigError

if TYPE_CHECKING:
    from celery import Celery

    from runclaim.app import Runclaim


def find(app: Celery | str) -> Runclaim:
    """
    The Runclaim of a Celery app, or of the app that a text names as for `celery -A`, seen from the working directory.

    What a worker would import is imported: the modules of `include` and `autodiscover_tasks` declare flows too.
    Raises: ConfigError when a module cannot be imported, or attaches no Runclaim.
    """
    name = app if isinstance(app, str) else str(app.main)
    found = _import(app) if isinstance(app, str) else app
    if hasattr(found, "loader"):  # what a text names may be anything
        _import_tasks(found, name)
    attached: Runclaim | None = getattr(found, "runclaim", None)
    if attached is None:
        raise ConfigError(
            f"the Celery app {name or 'here'} has no Runclaim(app); name with -A the module that creates one"
        )
    return attached


def _import(name: str) -> Celery:
    try:
        found: Celery = find_app(name)
    except ModuleNotFoundError as error:
        module, _, attribute = name.partition(":")
        if error.name == module:
            raise ConfigError(
                f"there is no module {module} here; give -A as for celery -A, in the folder of the module"
            ) from error
        if error.name == name:
            raise ConfigError(f"the module {module} has no {attribute}; give -A as for celery -A") from error
        raise ConfigError(f"the application {name} cannot be imported: {error}") from error
    except AttributeError as error:
        raise ConfigError(f"there is no Celery app in {name}: {error}") from error
    return found


def _import_tasks(app: Celery, name: str) -> None:
    try:
        app.loader.import_default_modules()
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"a module of tasks of the application {name} cannot be imported: {error}") from error
