-- Audit store, first release: one row per exchange, and the gaps where rows could not be kept.
-- Times are Unix milliseconds in UTC: datetime(ts / 1000.0, 'unixepoch') shows them. The primary key begins with
-- the time, so that new rows are neighbours and a range of time needs no index of its own; ts comes from the
-- UUIDv7 id, so a replayed row always meets its first copy. An index for each reader would cost every row more
-- than it saves a reader here: ranges by app, model or provider walk the rows of their time.

CREATE TABLE audit (
    id                TEXT NOT NULL,
    ts                INTEGER NOT NULL,
    writer            TEXT NOT NULL,
    epoch             INTEGER NOT NULL,
    seq               INTEGER NOT NULL,
    app               TEXT NOT NULL,
    user_id           TEXT NOT NULL,
    conversation      TEXT NOT NULL,
    caller            TEXT NOT NULL,
    route             TEXT NOT NULL,
    policy            TEXT NOT NULL,
    policy_revision   TEXT NOT NULL,
    provider          TEXT NOT NULL,
    model_asked       TEXT NOT NULL,
    model_served      TEXT NOT NULL,
    method            TEXT NOT NULL,
    path              TEXT NOT NULL,
    stream            INTEGER NOT NULL,
    status            TEXT NOT NULL,
    http_status       INTEGER NOT NULL,
    outcome           TEXT NOT NULL,
    fault             TEXT NOT NULL,
    error_code        TEXT NOT NULL,
    error_message     TEXT NOT NULL,
    attempt_count     INTEGER NOT NULL,
    attempts          TEXT NOT NULL,
    request_bytes     INTEGER NOT NULL,
    response_bytes    INTEGER,
    tokens_in         INTEGER,
    tokens_out        INTEGER,
    tokens_cached     INTEGER,
    tokens_reasoning  INTEGER,
    tokens_estimated  INTEGER NOT NULL,
    cost_usd          REAL,
    latency_ms        REAL,
    first_token_ms    REAL,
    upstream_ms       REAL,
    pii_detected      INTEGER NOT NULL,
    pii_sanitized     INTEGER NOT NULL,
    findings          TEXT NOT NULL,
    sanitized         TEXT NOT NULL,
    response_findings TEXT NOT NULL,
    unscanned_bytes   INTEGER NOT NULL,
    budget            TEXT NOT NULL,
    notes             TEXT NOT NULL,
    flags             TEXT NOT NULL,
    subject           TEXT,
    hash              BLOB,
    metadata          TEXT NOT NULL DEFAULT '{}',
    PRIMARY KEY (ts, id)
);

CREATE INDEX audit_user_ts ON audit (user_id, ts) WHERE user_id <> '';
CREATE INDEX audit_failed_ts ON audit (status, ts) WHERE status <> 'success';

CREATE TABLE audit_gaps (
    writer TEXT NOT NULL,
    epoch  INTEGER NOT NULL,
    seq    INTEGER NOT NULL,
    ts     INTEGER NOT NULL,
    shed   INTEGER,
    reason TEXT NOT NULL,
    PRIMARY KEY (writer, epoch, seq)
) WITHOUT ROWID;
