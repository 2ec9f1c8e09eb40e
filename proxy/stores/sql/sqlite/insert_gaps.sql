INSERT INTO audit_gaps (writer, epoch, seq, ts, shed, reason, position, hash) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (writer, epoch, seq) DO NOTHING;
