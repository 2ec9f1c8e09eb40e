SELECT
    found.key AS type,
    sum(found.value::bigint)::bigint AS found,
    sum(coalesce((sanitized ->> found.key)::bigint, 0))::bigint AS replaced,
    count(*) AS exchanges
FROM (SELECT findings, sanitized FROM audit /*where*/) AS matching, jsonb_each_text(findings) AS found
GROUP BY found.key
ORDER BY found DESC, type
