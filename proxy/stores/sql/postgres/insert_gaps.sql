INSERT INTO audit_gaps (writer, epoch, seq, ts, shed, reason, position, hash) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (writer, epoch, seq) DO NOTHING;
