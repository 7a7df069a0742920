//! Any bytes as a record of the audit, a block of facts or an event: what is read is written as the
//! same bytes.

pub(crate) fn run(bytes: &[u8]) {
    sextant_audit::fuzz_record(bytes);
}
