-- Audit store, first release: one row per exchange, and the gaps where rows could not be kept.
-- The primary key holds ts because a unique index of a partitioned table must hold the partition key; ts
-- comes from the UUIDv7 id, so a replayed row always meets its first copy.

CREATE TABLE audit (
    id                uuid NOT NULL,
    ts                timestamptz NOT NULL,
    writer            uuid NOT NULL,
    epoch             bigint NOT NULL,
    seq               bigint NOT NULL,
    app               text NOT NULL,
    user_id           text NOT NULL,
    conversation      text NOT NULL,
    caller            text NOT NULL,
    route             text NOT NULL,
    policy            text NOT NULL,
    policy_revision   text NOT NULL,
    provider          text NOT NULL,
    model_asked       text NOT NULL,
    model_served      text NOT NULL,
    method            text NOT NULL,
    path              text NOT NULL,
    stream            boolean NOT NULL,
    status            text NOT NULL,
    http_status       integer NOT NULL,
    outcome           text NOT NULL,
    fault             text NOT NULL,
    error_code        text NOT NULL,
    error_message     text NOT NULL,
    attempt_count     integer NOT NULL,
    attempts          jsonb NOT NULL,
    request_bytes     bigint NOT NULL,
    response_bytes    bigint,
    tokens_in         bigint,
    tokens_out        bigint,
    tokens_cached     bigint,
    tokens_reasoning  bigint,
    tokens_estimated  boolean NOT NULL,
    cost_usd          double precision,
    latency_ms        double precision,
    first_token_ms    double precision,
    upstream_ms       double precision,
    pii_detected      boolean NOT NULL,
    pii_sanitized     boolean NOT NULL,
    findings          jsonb NOT NULL,
    sanitized         jsonb NOT NULL,
    response_findings jsonb NOT NULL,
    unscanned_bytes   bigint NOT NULL,
    budget            jsonb NOT NULL,
    notes             jsonb NOT NULL,
    flags             text NOT NULL,
    subject           text,
    hash              bytea,
    metadata          jsonb NOT NULL,
    PRIMARY KEY (id, ts)
) PARTITION BY RANGE (ts);

COMMENT ON TABLE audit IS 'One row per exchange that passed a Readygate sidecar; no prompt or answer text.';

-- Rows with a clock far off, or older than any partition, are kept here rather than refused.
CREATE TABLE audit_default PARTITION OF audit DEFAULT;

CREATE INDEX audit_ts ON audit (ts);
CREATE INDEX audit_app_ts ON audit (app, ts);
CREATE INDEX audit_user_ts ON audit (user_id, ts) WHERE user_id <> '';
CREATE INDEX audit_failed_ts ON audit (status, ts) WHERE status <> 'success';

CREATE TABLE audit_gaps (
    writer uuid NOT NULL,
    epoch  bigint NOT NULL,
    seq    bigint NOT NULL,
    ts     timestamptz NOT NULL,
    shed   bigint,
    reason text NOT NULL,
    PRIMARY KEY (writer, epoch, seq)
);

COMMENT ON COLUMN audit_gaps.shed IS 'Rows not kept since ts; NULL in the record that opens a gap.';

-- Makes the partition of this month and of as many months ahead as asked. A month whose rows already lie in
-- the default partition cannot get one of its own any more; it is left there.
CREATE FUNCTION audit_ensure_partitions(months_ahead integer) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    first_day timestamp := date_trunc('month', now() AT TIME ZONE 'UTC');
    month     timestamp;
    name      text;
    made      integer := 0;
BEGIN
    FOR ahead IN 0..months_ahead LOOP
        month := first_day + make_interval(months => ahead);
        name := 'audit_' || to_char(month, '"y"YYYY"m"MM');
        IF to_regclass(name) IS NULL THEN
            BEGIN
                EXECUTE format(
                    'CREATE TABLE %I PARTITION OF audit FOR VALUES FROM (%L) TO (%L)',
                    name, month AT TIME ZONE 'UTC', (month + interval '1 month') AT TIME ZONE 'UTC'
                );
                made := made + 1;
            EXCEPTION WHEN check_violation THEN
                RAISE NOTICE 'month % stays in the default partition', name;
            END;
        END IF;
    END LOOP;
    RETURN made;
END
$$;
