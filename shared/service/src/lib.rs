//! What every daemon's main needs: configuration, telemetry, admin HTTP, signals, systemd.
