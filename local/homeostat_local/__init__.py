"""The embedded default: broker, database and every service as processes on loopback."""
