"""The settings: three sources, one order, checked at the start."""

from __future__ import annotations

from dataclasses import fields
from datetime import timedelta
from pathlib import Path

import pytest
from celery import Celery

from runclaim.config import Config, duration, resolve
from runclaim.errors import ConfigError


def test_a_laptop_needs_no_settings():
    assert resolve({}, {}, {}) == Config()
    assert f"sqlite:///{Path.cwd()}/.runclaim/ledger.db" == Config().database_url


def test_an_argument_comes_before_the_environment_and_that_before_celery():
    celery = {"runclaim_lease": 1, "runclaim_max_duration": 2, "runclaim_purge_every": 3}
    environ = {"RUNCLAIM_LEASE": "10s", "RUNCLAIM_MAX_DURATION": "20m"}
    found = resolve({"lease": timedelta(hours=1)}, environ, celery)

    assert (
        timedelta(hours=1), timedelta(minutes=20), timedelta(seconds=3)
    ) == (found.lease, found.max_duration, found.purge_every)  # fmt: skip


def test_an_empty_variable_counts_as_none():
    assert resolve({}, {"RUNCLAIM_LEASE": ""}, {}).lease == Config().lease


@pytest.mark.parametrize(
    "text, seconds",
    [("90", 90), ("90s", 90), ("1.5m", 90), (" 2 h ", 7200), ("30d", 2592000), ("250ms", 0.25), (45, 45), (1.5, 1.5)],
)
def test_a_duration_may_be_written_as_people_write_it(text, seconds):
    assert duration("lease", text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "soon", "-5s", "5 s m", "1e3", "inf", "nan", True, None, "9" * 30 + "d"])
def test_any_other_duration_is_refused_with_an_example(text):
    with pytest.raises(ConfigError, match=r"lease is .*such as 90s"):
        duration("lease", text)


def test_an_unknown_setting_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"unknown setting leese; the settings are .*lease"):
        resolve({"leese": 5}, {}, {})


@pytest.mark.parametrize("name", [field.name for field in fields(Config) if field.type == "timedelta"])
@pytest.mark.parametrize("value", [timedelta(0), timedelta(seconds=-1)])
def test_no_duration_may_be_nothing(name, value):
    with pytest.raises(ConfigError, match=f"{name} must be greater than zero, not "):
        resolve({name: value}, {}, {})


@pytest.mark.parametrize(
    "url", ["mysql://ann:s3cret@db/ledger", "postgresql+pg8000://ann:s3cret@db/ledger", "", "ledger.db"]
)
def test_a_database_of_another_kind_is_refused_without_its_password(url):
    with pytest.raises(ConfigError, match=r"(is not supported|cannot be read): use postgresql") as refused:
        resolve({"database_url": url}, {}, {})
    assert "s3cret" not in str(refused.value)


def test_an_application_that_must_not_use_the_default_says_so_by_a_variable():
    url = "sqlite:////srv/ledger.db"

    assert url == resolve({}, {"RUNCLAIM_DATABASE_URL": url}, {}).database_url


def test_a_variable_may_name_a_file_instead(tmp_path):
    """As containers are given secrets; the variable itself comes first."""
    file = tmp_path / "database_url"
    file.write_text("sqlite:////srv/ledger.db\n")
    named = {"RUNCLAIM_DATABASE_URL_FILE": str(file)}

    assert "sqlite:////srv/ledger.db" == resolve({}, named, {}).database_url
    assert "sqlite:////x.db" == resolve({}, named | {"RUNCLAIM_DATABASE_URL": "sqlite:////x.db"}, {}).database_url
    with pytest.raises(ConfigError, match="RUNCLAIM_DATABASE_URL_FILE names"):
        resolve({}, {"RUNCLAIM_DATABASE_URL_FILE": str(tmp_path / "none")}, {})


@pytest.mark.parametrize(
    "variable, meant",
    [
        ("RUNCLAIM_LEESE", "did you mean RUNCLAIM_LEASE"),
        ("RUNCLAIM_DATBASE_URL", "did you mean RUNCLAIM_DATABASE_URL"),
        ("RUNCLAIM_DATABASE_ULR_FILE", "did you mean RUNCLAIM_DATABASE_URL"),
        ("RUNCLAIM_API_TOKEN", "did you mean RUNCLAIM_TOKEN"),
        ("RUNCLAIM_WHATEVER", "docs/settings.md lists the settings"),
    ],
)
def test_a_variable_that_nobody_reads_is_refused_with_the_one_that_was_meant(variable, meant):
    """
    INVARIANT: a mistyped setting never leaves a machine on a ledger of its own.

    Breaks if variables that begin with RUNCLAIM_ and name no setting are passed over.
    """
    with pytest.raises(ConfigError, match=f"the variable {variable} is not a setting of runclaim.*{meant}"):
        resolve({}, {variable: "5s"}, {})


@pytest.mark.parametrize(
    "variable",
    [
        "RUNCLAIM_TOKEN",
        "RUNCLAIM_API_URL",
        "RUNCLAIM_APP",
        "RUNCLAIM_TOKEN_FILE",
        "RUNCLAIM_FAILPOINTS",
        "RUNCLAIM_SERVICE_HOST",
        "RUNCLAIM_API_SERVICE_PORT_HTTP",
        "RUNCLAIM_API_PORT_8400_TCP_ADDR",
        "RUNCLAIM_PORT",
        "OTHER_RUNCLAIM_LEESE",
    ],
)
def test_other_variables_are_left_alone_such_as_those_that_kubernetes_sets_for_a_service(variable):
    assert resolve({}, {variable: "x"}, {}) == Config()


@pytest.mark.parametrize(
    "key, says",
    [
        ("runclaim_leese", "is not a setting: did you mean runclaim_lease"),
        ("RUNCLAIM_LEASE", "is ignored; write runclaim_lease"),
        ("celery_runclaim_leese", "is not a setting: did you mean runclaim_lease"),
    ],
)
def test_a_key_of_celerys_that_nobody_reads_is_refused(key, says):
    with pytest.raises(ConfigError, match=f"the key {key} of Celery's configuration {says}"):
        resolve({}, {}, {key: 5})


class OldStyle:
    RUNCLAIM_LEASE = 5


class Namespaced:
    CELERY_RUNCLAIM_LEASE = 5


class Misspelled:
    CELERY_RUNCLAIM_LEESE = 5


@pytest.mark.parametrize(
    "settings, namespace, expected",
    [
        (OldStyle, None, "is ignored; write runclaim_lease"),
        (Namespaced, "CELERY", timedelta(seconds=5)),
        (Misspelled, "CELERY", "did you mean runclaim_lease"),
    ],
)
def test_the_keys_of_a_celery_application_are_looked_at_as_celery_reads_them(settings, namespace, expected):
    app = Celery("shop", set_as_current=False)
    app.config_from_object(settings, namespace=namespace)
    try:
        found = resolve({}, {}, app.conf).lease
    except ConfigError as refused:
        found = str(refused)

    assert found == expected if isinstance(expected, timedelta) else expected in found


def test_a_log_format_that_is_none_is_refused():
    with pytest.raises(ConfigError, match="log_format is 'yaml'; use text or json"):
        resolve({"log_format": "yaml"}, {}, {})


def test_a_switch_that_celery_turns_off_is_off():
    assert resolve({}, {}, {"runclaim_grouped": False}).grouped is False
    assert resolve({}, {}, {"runclaim_grouped": ""}).grouped is True
