//! An append-only, checksummed log, written through the ring and read through memory maps.
