INSERT INTO audit_gaps (writer, epoch, seq, ts, shed, reason) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (writer, epoch, seq) DO NOTHING;
