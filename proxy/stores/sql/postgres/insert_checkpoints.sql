INSERT INTO audit_checkpoints (writer, epoch, seq, kind, ts, body, key, signature) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (writer, epoch, kind, seq) DO NOTHING;
