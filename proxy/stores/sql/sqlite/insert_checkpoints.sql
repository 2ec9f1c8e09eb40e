INSERT INTO audit_checkpoints (writer, epoch, seq, kind, ts, body, key, signature) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (writer, epoch, kind, seq) DO NOTHING;
