"""What this process remembers of tokens, so that neither guesses nor uses cost the ledger more than they should."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

from runclaim.ledger.doors import tokens

if TYPE_CHECKING:
    from runclaim.database import Database

_FRESH_SECONDS: Final = 10.0
_NOTED_SECONDS: Final = 60.0


class KnownTokens:
    """One for each API process. Safe across threads."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._hashes: frozenset[str] = frozenset()
        self._read_at = float("-inf")
        self._noted: dict[str, float] = {}

    def may_be(self, text: str) -> bool:
        """Whether the text was a token a few seconds ago; for an origin that has guessed too often."""
        with self._lock:
            if time.monotonic() - self._read_at >= _FRESH_SECONDS:
                self._hashes, self._read_at = self._database.ask(tokens.secret_hashes), time.monotonic()
            return tokens.secret_hash(text) in self._hashes

    def is_to_be_noted(self, token_id: str) -> bool:
        """Whether a use of the token was not written down in the last minute, or could not be."""
        with self._lock:
            moment = time.monotonic()
            if moment - self._noted.get(token_id, float("-inf")) < _NOTED_SECONDS:
                return False
            self._noted[token_id] = moment
            return True
