-- Proof, erasure and retention: the chain of each writer, signed checkpoints, who was erased, who did what.

ALTER TABLE audit ADD COLUMN seal bytea;
COMMENT ON COLUMN audit.hash IS 'Binds this row to the one before it of the same writer and epoch.';
COMMENT ON COLUMN audit.seal IS 'Kind, position, then the salt of the personal columns or, once erased, their commitment.';

ALTER TABLE audit_gaps ADD COLUMN position bigint;
ALTER TABLE audit_gaps ADD COLUMN hash bytea;

CREATE TABLE audit_checkpoints (
    writer    uuid NOT NULL,
    epoch     bigint NOT NULL,
    seq       bigint NOT NULL,
    kind      text NOT NULL,
    ts        timestamptz NOT NULL,
    body      text NOT NULL,
    key       text NOT NULL,
    signature bytea NOT NULL,
    PRIMARY KEY (writer, epoch, kind, seq)
);
COMMENT ON TABLE audit_checkpoints IS 'Signed statements about the chains; body is what was signed, byte for byte.';

-- Rows of these subjects that began before the moment lose what names a person when they arrive.
CREATE TABLE audit_tombstones (
    subject text PRIMARY KEY,
    before  timestamptz NOT NULL
);

CREATE TABLE audit_actions (
    id     uuid PRIMARY KEY,
    ts     timestamptz NOT NULL,
    actor  text NOT NULL,
    action text NOT NULL,
    detail jsonb NOT NULL
);
COMMENT ON TABLE audit_actions IS 'What was done to the record itself: erasures, exports of a person, retention.';

CREATE TABLE audit_subject_keys (
    subject text PRIMARY KEY,
    wrapped bytea NOT NULL,
    made_at timestamptz NOT NULL
);
COMMENT ON TABLE audit_subject_keys IS 'One content key per person, wrapped by the master key; deleting it ends their content.';

CREATE TABLE audit_content (
    id      uuid NOT NULL,
    ts      timestamptz NOT NULL,
    part    text NOT NULL,
    subject text NOT NULL,
    expires timestamptz,
    sealed  bytea NOT NULL,
    PRIMARY KEY (id, part)
);
CREATE INDEX audit_content_subject ON audit_content (subject);
CREATE INDEX audit_content_expires ON audit_content (expires);

CREATE TABLE audit_store (
    name  text PRIMARY KEY,
    value text NOT NULL
);
INSERT INTO audit_store (name, value) VALUES
    ('tombstones', '0'),
    ('subject_salt', replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''));
