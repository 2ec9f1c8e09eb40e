-- Proof, erasure and retention: the chain of each writer, signed checkpoints, who was erased, who did what.

ALTER TABLE audit ADD COLUMN seal BLOB;

ALTER TABLE audit_gaps ADD COLUMN position INTEGER;
ALTER TABLE audit_gaps ADD COLUMN hash BLOB;

CREATE TABLE audit_checkpoints (
    writer    TEXT NOT NULL,
    epoch     INTEGER NOT NULL,
    seq       INTEGER NOT NULL,
    kind      TEXT NOT NULL,
    ts        INTEGER NOT NULL,
    body      TEXT NOT NULL,
    key       TEXT NOT NULL,
    signature BLOB NOT NULL,
    PRIMARY KEY (writer, epoch, kind, seq)
) WITHOUT ROWID;

CREATE TABLE audit_tombstones (
    subject TEXT PRIMARY KEY,
    before  INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE audit_actions (
    id     TEXT PRIMARY KEY,
    ts     INTEGER NOT NULL,
    actor  TEXT NOT NULL,
    action TEXT NOT NULL,
    detail TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE audit_subject_keys (
    subject TEXT PRIMARY KEY,
    wrapped BLOB NOT NULL,
    made_at INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE audit_content (
    id      TEXT NOT NULL,
    ts      INTEGER NOT NULL,
    part    TEXT NOT NULL,
    subject TEXT NOT NULL,
    expires INTEGER,
    sealed  BLOB NOT NULL,
    PRIMARY KEY (id, part)
);
CREATE INDEX audit_content_subject ON audit_content (subject);
CREATE INDEX audit_content_expires ON audit_content (expires);

CREATE TABLE audit_store (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;
INSERT INTO audit_store (name, value) VALUES ('tombstones', '0'), ('subject_salt', lower(hex(randomblob(32))));
