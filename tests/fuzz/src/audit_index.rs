//! Any bytes as the index of a segment of the audit, with a checksum that is right: whatever it says
//! can be asked, and is as long as it was.

pub(crate) fn run(bytes: &[u8]) {
    sextant_audit::fuzz_index(bytes);
}
