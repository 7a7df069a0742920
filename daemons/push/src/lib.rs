//! The push daemon: MQTT to devices, HTTP to senders, every message on disk first.
