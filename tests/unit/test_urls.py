"""URLs as they may be shown, and the files that they name."""

from __future__ import annotations

import traceback
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import make_url

from runclaim.config import Config
from runclaim.database import Database
from runclaim.errors import ConfigError
from runclaim.urls import masked, settled, sqlite_file

SECRET = "hunter2"


@pytest.mark.parametrize(
    "url, shown",
    [
        ("redis://:hidden@host:6379/0", "redis://:***@host:6379/0"),
        ("redis://host/0?password=hidden&db=1", "redis://host/0?password=***&db=1"),
        ("postgresql+psycopg://a:h%40i@host/x?sslmode=require", "postgresql+psycopg://a:***@host/x?sslmode=require"),
        ("postgresql+psycopg:///x?user=a&password=b%26c;d", "postgresql+psycopg:///x?user=a&password=***"),
        ("postgresql+psycopg://h/x?p%61ssword=b&sslpassword=", "postgresql+psycopg://h/x?password=***&sslpassword=***"),
        ("amqp://me:a;b@one//;amqp://me:c@two//", "amqp://me:***@one//;amqp://me:***@two//"),
        ("sqlite:///runclaim.db", "sqlite:///runclaim.db"),
        ("sqlite:////var/a:b@c/runclaim.db", "sqlite:////var/a:b@c/runclaim.db"),
        ("https://runs.example.com", "https://runs.example.com"),
        ("plain", "plain"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str):
    assert shown == masked(url)


@pytest.mark.parametrize("sign", "#/?;&=:%+ ")
def test_a_password_with_any_sign_in_it_is_hidden_whole(sign: str):
    """SQLAlchemy reads a password up to the `@`, whatever it holds; a parser of the RFC's would stop in the middle."""
    url = f"postgresql+psycopg://me:hunter{sign}2secret@host/x"

    assert f"hunter{sign}2secret" == make_url(url.replace("%", "%25")).password
    assert "postgresql+psycopg://me:***@host/x" == masked(url)


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql+psycopg://me:{SECRET}@host/x",
        f"postgresql+psycopg://host/x?user=me&password={SECRET}",
        f"postgresql+psycopg:///?host=host&sslpassword={SECRET}",
    ],
)
def test_a_database_is_told_without_its_password_wherever_that_stands(url: str):
    """Breaks if the authority's alone is hidden, as SQLAlchemy does."""
    database = Database(url, patience=timedelta(0))

    assert SECRET not in str(database)
    assert "***" in str(database)


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite:///file::memory:?uri=true",
        "sqlite:///file::memory:",
        "sqlite:///file:ledger?mode=memory&cache=shared&uri=true",
        "sqlite:///ledger.db?mode=memory",
        "sqlite:///file:ledger.db?vfs=memdb&uri=true",
    ],
)
def test_a_ledger_that_ends_with_its_process_is_refused_in_every_spelling(url: str):
    with pytest.raises(ConfigError, match="workers and callers share the ledger"):
        Database(url, patience=timedelta(0))
    with pytest.raises(ConfigError, match=r"share the ledger|not supported"):
        Config(database_url=url)


def test_the_shells_name_of_a_home_is_refused_with_what_to_write():
    with pytest.raises(ConfigError) as refused:
        Config(database_url="sqlite:///~/ledger.db")

    assert f"write sqlite:///{Path.home()}/ledger.db" in str(refused.value)


def test_a_relative_path_is_made_whole_when_the_settings_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """
    INVARIANT: a body that changes the working directory does not change the ledger, nor where records are kept.

    Breaks if a path is resolved when it is used.
    """
    monkeypatch.chdir(tmp_path)
    config = Config(alive_file="alive")
    monkeypatch.chdir("/")

    assert tmp_path / ".runclaim" / "ledger.db" == sqlite_file(config.database_url)
    assert [f"{tmp_path}/.runclaim/fail-open", f"{tmp_path}/alive"] == [config.fail_open_folder, config.alive_file]
    assert config == Config(
        **{name: getattr(config, name) for name in ("database_url", "fail_open_folder", "alive_file")}
    )


@pytest.mark.parametrize("name", ["My Projects", "a%2Fb", "it's", "$HOME;x", 'q"#?', "日本"])
def test_a_file_of_any_name_is_found_again_behind_its_url(tmp_path: Path, name: str):
    file = tmp_path / name
    url = settled(f"sqlite:///{file}".replace("%", "%25").replace("?", "%3F"))

    assert file == sqlite_file(url)
    assert url == settled(url)


@pytest.mark.parametrize("scheme", ["postgresql+psycopg", "postgresql", "postgres"])
def test_a_url_of_postgresql_is_psycopgs_in_every_spelling(scheme: str):
    """Breaks if only the driver's own spelling is known: hosting services, Django and Alembic hand out the others."""
    url = f"{scheme}://me:p%40ss@host:5432/shop?sslmode=require"
    written = "postgresql+psycopg://me:p%40ss@host:5432/shop?sslmode=require"

    assert written == Config(database_url=url).database_url
    assert written == Database(url, patience=timedelta(0)).url.render_as_string(hide_password=False)


@pytest.mark.parametrize(
    "url, words",
    [
        ("postgresql+asyncpg://me@host/x", "use postgresql://user@host/database or sqlite:///file.db, without asyncpg"),
        ("postgresql+psycopg2://me@host/x", "without psycopg2: the ledger has a driver of its own"),
        ("sqlite+aiosqlite:///x.db", "sqlite+aiosqlite://… is not supported"),
        ("mysql://me@host/x", "mysql://… is not supported: use postgresql://"),
        ("postgresql://me@host/x?schema=a&schema=b", "write the name of one schema"),
    ],
)
def test_a_url_for_another_driver_is_refused_with_what_to_write(url: str, words: str):
    with pytest.raises(ConfigError) as refused:
        Config(database_url=url)

    assert words in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://me@host:{SECRET}/x",
        f"postgresql://me:{SECRET}/rest@host:x/y",
        f"{SECRET}",
        f"postgresql:/me:{SECRET}@host/x",
        f"mysql://me:{SECRET}@host/x",
        f"postgresql+asyncpg://host/x?password={SECRET}",
        f"postgresql://host/x?password={SECRET}&schema=",
        f"sqlite:///x.db?password={SECRET}",
    ],
)
def test_a_url_that_is_refused_shows_no_part_of_a_password(url: str):
    """Breaks if an error is made of the words of a parser, which show what it could not read."""
    with pytest.raises(ConfigError) as refused:
        Config(database_url=url, schema="pg_no")
    shown = "".join(traceback.format_exception(refused.value))

    assert SECRET not in shown


def test_a_schema_is_part_of_the_ledgers_address():
    """Whoever is given the URL of the settings, in whatever process, is led to the same tables."""
    chosen = Config(database_url="postgresql://host/shop", schema="work flows")

    assert "postgresql+psycopg://host/shop?schema=work+flows" == chosen.database_url
    assert "work flows" == Database(chosen.database_url, patience=timedelta(0)).schema
    assert chosen == Config(database_url=chosen.database_url, schema="work flows")


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"database_url": "postgresql://host/x", "schema": "pg_temp"}, "does not begin with pg_"),
        ({"database_url": "postgresql://host/x", "schema": "$user"}, "write the name of one schema"),
        ({"database_url": "postgresql://host/x", "schema": "ä" * 32}, "at most 63 bytes"),
        ({"database_url": "postgresql://host/x", "schema": "a\0b"}, "write the name of one schema"),
        ({"database_url": "postgresql://host/x?schema=one", "schema": "two"}, "names the schema 'one': name one of"),
        ({"database_url": "sqlite:///x.db", "schema": "work"}, "the ledger is on SQLite, which has none"),
    ],
)
def test_a_schema_that_would_be_another_one_is_refused(settings: dict[str, str], words: str):
    """Breaks if PostgreSQL is left to cut the name, or to read another into it."""
    with pytest.raises(ConfigError) as refused:
        Config(**settings)

    assert words in str(refused.value)
