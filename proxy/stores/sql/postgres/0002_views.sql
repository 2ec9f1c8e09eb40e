-- Views for people and dashboards; a day is a day of UTC. None of them is read by the sidecar itself.

CREATE VIEW audit_cost_by_app_day AS
SELECT
    (ts AT TIME ZONE 'UTC')::date AS day,
    app,
    count(*) AS exchanges,
    coalesce(sum(tokens_in), 0)::bigint AS tokens_in,
    coalesce(sum(tokens_out), 0)::bigint AS tokens_out,
    coalesce(sum(cost_usd), 0.0) AS cost_usd,
    count(*) FILTER (WHERE cost_usd IS NULL) AS without_cost
FROM audit
GROUP BY 1, 2;

COMMENT ON VIEW audit_cost_by_app_day IS 'Tokens and cost of each app per day; without_cost counts exchanges with no known price.';

CREATE VIEW audit_errors_by_provider_day AS
SELECT
    (audit.ts AT TIME ZONE 'UTC')::date AS day,
    attempt ->> 'provider' AS provider,
    count(*) AS attempts,
    count(*) FILTER (WHERE attempt ->> 'outcome' NOT IN ('ok', 'upstream_4xx', 'client_cancelled', 'shutting_down')) AS failed,
    count(*) FILTER (WHERE attempt ->> 'outcome' = 'upstream_4xx') AS refused_as_wrong,
    (count(*) FILTER (WHERE attempt ->> 'outcome' NOT IN ('ok', 'upstream_4xx', 'client_cancelled', 'shutting_down')))::double precision
        / count(*) AS error_rate
FROM audit, jsonb_array_elements(audit.attempts) AS attempt
WHERE attempt ->> 'outcome' NOT IN ('breaker_open', 'budget_denied')
GROUP BY 1, 2;

COMMENT ON VIEW audit_errors_by_provider_day IS 'Attempts, not exchanges: a failure that a fallback hid counts against the provider that failed.';

CREATE VIEW audit_redactions_by_type_day AS
SELECT
    (audit.ts AT TIME ZONE 'UTC')::date AS day,
    app,
    found.key AS type,
    sum(found.value::bigint)::bigint AS found,
    sum(coalesce((sanitized ->> found.key)::bigint, 0))::bigint AS replaced,
    count(*) AS exchanges
FROM audit, jsonb_each_text(findings) AS found
GROUP BY 1, 2, 3;

COMMENT ON VIEW audit_redactions_by_type_day IS 'What was found in requests and what of it was replaced, by type; values are kept nowhere.';

CREATE VIEW audit_slowest_by_day AS
SELECT day, place, latency_ms, first_token_ms, upstream_ms, app, provider, model_served, status, attempt_count, id
FROM (
    SELECT
        (ts AT TIME ZONE 'UTC')::date AS day,
        row_number() OVER (PARTITION BY (ts AT TIME ZONE 'UTC')::date ORDER BY latency_ms DESC, id) AS place,
        latency_ms, first_token_ms, upstream_ms, app, provider, model_served, status, attempt_count, id
    FROM audit
    WHERE latency_ms IS NOT NULL
) AS ranked
WHERE place <= 100;

COMMENT ON VIEW audit_slowest_by_day IS 'The hundred slowest exchanges of each day, the slowest first.';

CREATE VIEW audit_fallbacks_by_route_day AS
SELECT
    (ts AT TIME ZONE 'UTC')::date AS day,
    route,
    count(*) AS exchanges,
    count(*) FILTER (WHERE status = 'fallback') AS fallbacks,
    count(*) FILTER (WHERE status = 'rescued') AS rescued,
    (count(*) FILTER (WHERE status IN ('fallback', 'rescued')))::double precision / count(*) AS fallback_rate,
    avg(attempt_count)::double precision AS mean_attempts
FROM audit
WHERE attempt_count > 0
GROUP BY 1, 2;

COMMENT ON VIEW audit_fallbacks_by_route_day IS 'How often the first target of a route did not serve; exchanges that reached no provider are left out.';
