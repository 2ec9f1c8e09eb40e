-- The place of a row among the latencies of its group gives the percentiles that SQLite has no function for.
WITH matching AS (
    SELECT
        /*by*/, status AS ended, latency_ms, tokens_in, tokens_out, cost_usd, pii_detected,
        row_number() OVER (PARTITION BY /*by*/ ORDER BY latency_ms IS NULL, latency_ms) AS place,
        count(latency_ms) OVER (PARTITION BY /*by*/) AS timed
    FROM audit
    /*where*/
)
SELECT
    /*by*/,
    count(*) AS exchanges,
    count(*) FILTER (WHERE ended IN ('error', 'rate_limited', 'interrupted')) AS errors,
    1.0 * count(*) FILTER (WHERE ended IN ('error', 'rate_limited', 'interrupted')) / count(*) AS error_rate,
    min(latency_ms) FILTER (WHERE place >= 0.5 * timed) AS p50_latency_ms,
    min(latency_ms) FILTER (WHERE place >= 0.95 * timed) AS p95_latency_ms,
    coalesce(sum(tokens_in), 0) AS tokens_in,
    coalesce(sum(tokens_out), 0) AS tokens_out,
    coalesce(sum(cost_usd), 0.0) AS cost_usd,
    count(*) FILTER (WHERE pii_detected) AS with_pii
FROM matching
GROUP BY /*by*/
ORDER BY count(*) DESC, /*by*/
