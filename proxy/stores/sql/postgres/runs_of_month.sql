-- The runs of chain places that a month holds: what lets its chains go on once it is gone.
WITH places AS (
    SELECT writer, epoch, seq, hash,
        ('x' || encode(substring(seal FROM 2 FOR 8), 'hex'))::bit(64)::bigint AS position
    FROM /*month*/
    WHERE hash IS NOT NULL AND get_byte(seal, 0) = 1
),
islands AS (
    SELECT writer, epoch, min(position) AS first_position, max(position) AS position
    FROM (
        SELECT writer, epoch, position,
            position - row_number() OVER (PARTITION BY writer, epoch ORDER BY position) AS island
        FROM places
    ) AS numbered
    GROUP BY writer, epoch, island
)
SELECT writer, epoch, islands.first_position, position, places.seq, places.hash
FROM islands JOIN places USING (writer, epoch, position)
ORDER BY writer, epoch, position
