SELECT
    found.key AS type,
    sum(found.value) AS found,
    sum(coalesce(replaced.value, 0)) AS replaced,
    count(*) AS exchanges
FROM (SELECT findings, sanitized FROM audit /*where*/) AS matching
JOIN json_each(matching.findings) AS found
LEFT JOIN json_each(matching.sanitized) AS replaced ON replaced.key = found.key
GROUP BY found.key
ORDER BY 2 DESC, 1
