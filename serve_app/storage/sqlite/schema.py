"""Tables, and how a file of an older version becomes one of this version.

Rules the layout keeps:

- A conversation is known inside by a small integer, so that event rows stay small. It is never used twice
  (AUTOINCREMENT): what a removal has not yet cleared away can never show up under a newer conversation.
- A removed conversation loses its owner and id at once, which hides it and all that hangs on it; its rows go in pieces.
- What every append rewrites (``turn``) is apart from what is large and written once (``turn_input``, ``turn_step``,
  ``session_prompt``): SQLite rewrites whole rows.
- Events are a rowid table: an append for many turns then writes next to itself, and not one page per turn (measured: a
  quarter less CPU and far less log than WITHOUT ROWID at 32 running turns).
- ``*_us`` are Unix microseconds; ``lease_until`` is in Unix seconds. Bodies are JSON of the domain's structs.
- ``usage`` outlives its conversation: it is what was consumed. ``usage_sum`` is kept with it, in the same transaction.
"""

from __future__ import annotations

import apsw

from serve_app.errors import ConfigError

_VERSION_1 = """
CREATE TABLE conversation (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  tenant_id TEXT,
  user_id TEXT,
  conversation_id TEXT,
  title TEXT,
  archived INTEGER NOT NULL DEFAULT 0,
  message_count INTEGER NOT NULL DEFAULT 0,
  active_turn_id TEXT,
  version INTEGER NOT NULL DEFAULT 1,
  created_us INTEGER NOT NULL,
  updated_us INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX conversation_key ON conversation (tenant_id, user_id, conversation_id);
CREATE INDEX conversation_recent ON conversation (tenant_id, user_id, archived, updated_us, id);

CREATE TABLE session_prompt (
  conversation INTEGER PRIMARY KEY REFERENCES conversation,
  body BLOB NOT NULL
) STRICT;

CREATE TABLE message (
  id INTEGER PRIMARY KEY,
  conversation INTEGER NOT NULL REFERENCES conversation,
  position INTEGER NOT NULL,
  message_id TEXT NOT NULL,
  reaction TEXT,
  body BLOB NOT NULL,
  UNIQUE (conversation, position),
  UNIQUE (conversation, message_id)
) STRICT;

CREATE TABLE turn (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  conversation INTEGER NOT NULL REFERENCES conversation,
  turn_id TEXT NOT NULL,
  client_turn_id TEXT,
  message_position INTEGER NOT NULL,
  state TEXT NOT NULL,
  epoch INTEGER NOT NULL,
  last_seq INTEGER NOT NULL,
  attempts INTEGER NOT NULL,
  owner_id TEXT,
  owner_endpoint TEXT,
  lease_until REAL NOT NULL,
  cancel_requested INTEGER NOT NULL,
  finished_us INTEGER,
  pruned INTEGER NOT NULL,
  outcome BLOB,
  UNIQUE (conversation, turn_id)
) STRICT;
CREATE UNIQUE INDEX turn_client ON turn (conversation, client_turn_id) WHERE client_turn_id IS NOT NULL;
CREATE INDEX turn_open ON turn (id) WHERE finished_us IS NULL;
CREATE INDEX turn_prunable ON turn (finished_us) WHERE finished_us IS NOT NULL AND pruned = 0;

CREATE TABLE turn_input (
  turn INTEGER PRIMARY KEY REFERENCES turn,
  body BLOB NOT NULL
) STRICT;

CREATE TABLE turn_step (
  turn INTEGER NOT NULL REFERENCES turn,
  step INTEGER NOT NULL,
  body BLOB NOT NULL,
  PRIMARY KEY (turn, step)
) STRICT;

CREATE TABLE event (
  turn INTEGER NOT NULL REFERENCES turn,
  seq INTEGER NOT NULL,
  epoch INTEGER NOT NULL,
  step INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  terminal INTEGER NOT NULL,
  body BLOB NOT NULL,
  PRIMARY KEY (turn, seq)
) STRICT;

CREATE TABLE usage (
  id INTEGER PRIMARY KEY,
  tenant_id TEXT NOT NULL,
  user_id TEXT NOT NULL,
  conversation_id TEXT NOT NULL,
  turn_id TEXT NOT NULL,
  model_id TEXT,
  input_tokens INTEGER NOT NULL,
  output_tokens INTEGER NOT NULL,
  at_us INTEGER NOT NULL
) STRICT;
CREATE INDEX usage_by_tenant ON usage (tenant_id, at_us);

CREATE TABLE health (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  checked_us INTEGER NOT NULL
) STRICT;
"""

_VERSION_2 = """
-- The highest position that a message has or that is reserved for one. A running turn's answer comes after its question.
ALTER TABLE conversation ADD COLUMN last_position INTEGER NOT NULL DEFAULT 0;
UPDATE conversation SET last_position = message_count + (active_turn_id IS NOT NULL);

-- The turn that took the message out of the conversation as shown.
ALTER TABLE message ADD COLUMN replaced_by TEXT;
CREATE INDEX message_shown ON message (conversation, position) WHERE replaced_by IS NULL;

-- Where the answer goes; where there is none, right behind the question.
ALTER TABLE turn ADD COLUMN answer_position INTEGER;
ALTER TABLE turn ADD COLUMN waits INTEGER NOT NULL DEFAULT 0;
-- The deadline of a turn that was let through; that of any other is in its input.
ALTER TABLE turn ADD COLUMN deadline REAL;
ALTER TABLE turn ADD COLUMN client_message_id TEXT;
CREATE INDEX turn_client_message ON turn (conversation, client_message_id) WHERE client_message_id IS NOT NULL;
DROP INDEX turn_open;
CREATE INDEX turn_open ON turn (conversation, id) WHERE finished_us IS NULL;
"""

_VERSION_3 = """
-- The highest seq that may have been shown, where that is beyond the last one stored.
ALTER TABLE turn ADD COLUMN shown_seq INTEGER NOT NULL DEFAULT 0;

CREATE TABLE record (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  tenant_id TEXT NOT NULL,
  kind TEXT NOT NULL,
  record_id TEXT NOT NULL,
  body BLOB NOT NULL,
  UNIQUE (tenant_id, kind, record_id)
) STRICT;
"""

_VERSION_4 = """
ALTER TABLE usage ADD COLUMN purpose TEXT NOT NULL DEFAULT 'turn';
ALTER TABLE usage ADD COLUMN cached_input_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage ADD COLUMN reasoning_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage ADD COLUMN cost_microusd INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage ADD COLUMN estimated INTEGER NOT NULL DEFAULT 0;
CREATE INDEX usage_by_user ON usage (tenant_id, user_id, at_us);

-- What the rows of a day add up to, so that a quarter of a tenant's year costs as much as its users and models, not its turns.
-- ``day`` counts from 1970-01-01; ``model_id`` is empty where nobody knows it; ``estimated`` counts rows.
CREATE TABLE usage_sum (
  tenant_id TEXT NOT NULL,
  day INTEGER NOT NULL,
  user_id TEXT NOT NULL,
  model_id TEXT NOT NULL,
  turns INTEGER NOT NULL,
  input_tokens INTEGER NOT NULL,
  output_tokens INTEGER NOT NULL,
  cached_input_tokens INTEGER NOT NULL,
  reasoning_tokens INTEGER NOT NULL,
  cost_microusd INTEGER NOT NULL,
  estimated INTEGER NOT NULL,
  PRIMARY KEY (tenant_id, day, user_id, model_id)
) STRICT, WITHOUT ROWID;
INSERT INTO usage_sum
SELECT tenant_id, at_us / 86400000000, user_id, coalesce(model_id, ''), count(*), sum(input_tokens), sum(output_tokens),
  0, 0, 0, 0
FROM usage GROUP BY 1, 2, 3, 4;
"""

MIGRATIONS: tuple[str, ...] = (_VERSION_1, _VERSION_2, _VERSION_3, _VERSION_4)
"""``MIGRATIONS[n]`` takes a file from version n to n + 1. Never edited once released; only added to."""


def migrate(connection: apsw.Connection, migrations: tuple[str, ...] = MIGRATIONS) -> int:
    """Brings the file to the newest version, one transaction per version; returns how many were applied.

    Raises ConfigError for a file that a newer program has written.
    """
    found = int(connection.pragma("user_version"))
    if found > len(migrations):
        raise ConfigError(
            f"The database {connection.filename} was written by a newer version of Parley (format {found}, this one "
            f"knows {len(migrations)}); run that version, or set PARLEY_DATA_DIR to another folder."
        )
    for version in range(found, len(migrations)):
        connection.execute("BEGIN EXCLUSIVE")
        try:
            connection.execute(migrations[version])
            connection.pragma("user_version", version + 1)
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
    return len(migrations) - found
