"""The tables of the embedded store, how those of earlier versions become them, and what every connection is told."""

from __future__ import annotations

SCHEMA_VERSION = 4
_TO_THIRD_SCHEMA = """
ALTER TABLE accounts ADD COLUMN role TEXT NOT NULL DEFAULT 'agent';
ALTER TABLE accounts ADD COLUMN queues TEXT NOT NULL DEFAULT '{}';
"""
MIGRATIONS = {
    0: "",
    # Sessions live for hours at most, so those of the first schema are let go; accounts stay.
    1: f"DROP TABLE IF EXISTS sessions; {_TO_THIRD_SCHEMA}",
    2: _TO_THIRD_SCHEMA,
    # The fourth brought a table more.
    3: "",
    SCHEMA_VERSION: "",
}
SCHEMA = """
CREATE TABLE IF NOT EXISTS sessions (
    reference TEXT PRIMARY KEY,
    purpose TEXT NOT NULL,
    created REAL NOT NULL,
    language TEXT,
    result TEXT,
    result_identity TEXT,
    result_until REAL,
    attr_handle TEXT UNIQUE NOT NULL,
    page_handle TEXT UNIQUE NOT NULL,
    page_opened INTEGER NOT NULL DEFAULT 0,
    code TEXT UNIQUE,
    code_valid_until REAL,
    claimed_by TEXT UNIQUE,
    secret TEXT UNIQUE
);
-- Tokens that were accepted, until they would be refused as expired anyway. The triggers note them in the statement
-- that keeps their result, which thereby fails whole when the token was accepted before.
CREATE TABLE IF NOT EXISTS accepted_tokens (
    identity TEXT PRIMARY KEY,
    until REAL NOT NULL
);
CREATE TRIGGER IF NOT EXISTS result_came_along AFTER INSERT ON sessions WHEN NEW.result_identity IS NOT NULL
BEGIN
    INSERT INTO accepted_tokens VALUES (NEW.result_identity, NEW.result_until);
END;
CREATE TRIGGER IF NOT EXISTS result_came AFTER UPDATE OF result_identity ON sessions
WHEN NEW.result_identity IS NOT NULL
BEGIN
    INSERT INTO accepted_tokens VALUES (NEW.result_identity, NEW.result_until);
END;
CREATE TABLE IF NOT EXISTS accounts (
    name TEXT PRIMARY KEY,
    endpoint TEXT NOT NULL,
    password_hash TEXT NOT NULL,
    role TEXT NOT NULL DEFAULT 'agent',
    queues TEXT NOT NULL DEFAULT '{}'
);
CREATE TABLE IF NOT EXISTS logins (
    login TEXT PRIMARY KEY,
    name TEXT NOT NULL REFERENCES accounts (name) ON DELETE CASCADE,
    created REAL NOT NULL,
    seen REAL NOT NULL
);
CREATE TRIGGER IF NOT EXISTS password_changed AFTER UPDATE OF password_hash ON accounts
WHEN NEW.password_hash IS NOT OLD.password_hash
BEGIN
    DELETE FROM logins WHERE name = NEW.name;
END;
CREATE TABLE IF NOT EXISTS calls (
    call TEXT NOT NULL,
    queue TEXT NOT NULL,
    purpose TEXT NOT NULL,
    verified INTEGER NOT NULL,
    arrived REAL NOT NULL,
    waited REAL NOT NULL,
    outcome TEXT NOT NULL,
    agent TEXT,
    talked REAL NOT NULL,
    wrap_up REAL NOT NULL,
    PRIMARY KEY (call, queue, arrived)
);
CREATE INDEX IF NOT EXISTS calls_by_arrival ON calls (arrived);
-- What the process has in hand, sealed; a note without a text is one that was deleted.
CREATE TABLE IF NOT EXISTS notes (
    name TEXT PRIMARY KEY,
    sealed TEXT
);
CREATE TABLE IF NOT EXISTS audit (
    sequence INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail TEXT NOT NULL,
    seal TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS audit_ends (
    which TEXT PRIMARY KEY,
    sequence INTEGER NOT NULL,
    seal TEXT NOT NULL,
    proof TEXT NOT NULL
) STRICT;
"""
# What is deleted is overwritten, so that it is not left in the file.
PRAGMAS = "PRAGMA synchronous=NORMAL; PRAGMA busy_timeout=2000; PRAGMA secure_delete=ON; PRAGMA foreign_keys=ON;"
