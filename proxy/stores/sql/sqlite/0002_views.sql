-- Views for people and dashboards, the same as in PostgreSQL; a day is a day of UTC, as text (2026-11-21).

CREATE VIEW audit_cost_by_app_day AS
SELECT
    date(ts / 1000, 'unixepoch') AS day,
    app,
    count(*) AS exchanges,
    coalesce(sum(tokens_in), 0) AS tokens_in,
    coalesce(sum(tokens_out), 0) AS tokens_out,
    coalesce(sum(cost_usd), 0.0) AS cost_usd,
    count(*) FILTER (WHERE cost_usd IS NULL) AS without_cost
FROM audit
GROUP BY 1, 2;

CREATE VIEW audit_errors_by_provider_day AS
SELECT
    date(audit.ts / 1000, 'unixepoch') AS day,
    json_extract(attempt.value, '$.provider') AS provider,
    count(*) AS attempts,
    count(*) FILTER (WHERE json_extract(attempt.value, '$.outcome') NOT IN ('ok', 'upstream_4xx', 'client_cancelled', 'shutting_down')) AS failed,
    count(*) FILTER (WHERE json_extract(attempt.value, '$.outcome') = 'upstream_4xx') AS refused_as_wrong,
    1.0 * count(*) FILTER (WHERE json_extract(attempt.value, '$.outcome') NOT IN ('ok', 'upstream_4xx', 'client_cancelled', 'shutting_down'))
        / count(*) AS error_rate
FROM audit, json_each(audit.attempts) AS attempt
WHERE json_extract(attempt.value, '$.outcome') NOT IN ('breaker_open', 'budget_denied')
GROUP BY 1, 2;

CREATE VIEW audit_redactions_by_type_day AS
SELECT
    date(audit.ts / 1000, 'unixepoch') AS day,
    app,
    found.key AS type,
    sum(found.value) AS found,
    sum(coalesce(replaced.value, 0)) AS replaced,
    count(*) AS exchanges
FROM audit, json_each(audit.findings) AS found
LEFT JOIN json_each(audit.sanitized) AS replaced ON replaced.key = found.key
GROUP BY 1, 2, 3;

CREATE VIEW audit_slowest_by_day AS
SELECT day, place, latency_ms, first_token_ms, upstream_ms, app, provider, model_served, status, attempt_count, id
FROM (
    SELECT
        date(ts / 1000, 'unixepoch') AS day,
        row_number() OVER (PARTITION BY date(ts / 1000, 'unixepoch') ORDER BY latency_ms DESC, id) AS place,
        latency_ms, first_token_ms, upstream_ms, app, provider, model_served, status, attempt_count, id
    FROM audit
    WHERE latency_ms IS NOT NULL
) AS ranked
WHERE place <= 100;

CREATE VIEW audit_fallbacks_by_route_day AS
SELECT
    date(ts / 1000, 'unixepoch') AS day,
    route,
    count(*) AS exchanges,
    count(*) FILTER (WHERE status = 'fallback') AS fallbacks,
    count(*) FILTER (WHERE status = 'rescued') AS rescued,
    1.0 * count(*) FILTER (WHERE status IN ('fallback', 'rescued')) / count(*) AS fallback_rate,
    avg(attempt_count) AS mean_attempts
FROM audit
WHERE attempt_count > 0
GROUP BY 1, 2;
