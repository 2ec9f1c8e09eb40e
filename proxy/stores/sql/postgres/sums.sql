SELECT
    provider, model_served, status,
    count(*) AS exchanges,
    coalesce(sum(tokens_in), 0)::bigint AS tokens_in,
    coalesce(sum(tokens_out), 0)::bigint AS tokens_out,
    coalesce(sum(cost_usd), 0.0) AS cost_usd,
    avg(latency_ms) AS mean_latency_ms,
    count(*) FILTER (WHERE pii_detected) AS with_pii
FROM audit
/*where*/
GROUP BY provider, model_served, status
ORDER BY count(*) DESC, provider, model_served, status
