SELECT
    /*by*/,
    count(*) AS exchanges,
    count(*) FILTER (WHERE status IN ('error', 'rate_limited', 'interrupted')) AS errors,
    (count(*) FILTER (WHERE status IN ('error', 'rate_limited', 'interrupted')))::double precision / count(*) AS error_rate,
    percentile_disc(0.5) WITHIN GROUP (ORDER BY latency_ms) AS p50_latency_ms,
    percentile_disc(0.95) WITHIN GROUP (ORDER BY latency_ms) AS p95_latency_ms,
    coalesce(sum(tokens_in), 0)::bigint AS tokens_in,
    coalesce(sum(tokens_out), 0)::bigint AS tokens_out,
    coalesce(sum(cost_usd), 0.0) AS cost_usd,
    count(*) FILTER (WHERE pii_detected) AS with_pii
FROM audit
/*where*/
GROUP BY /*by*/
ORDER BY count(*) DESC, /*by*/
