//! The fuzzer's own program: one target, by the name in `SEXTANT_FUZZ_TARGET`.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use sextant_fuzz::Target;

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("SEXTANT_FUZZ_TARGET").unwrap_or_default();
    sextant_fuzz::find(&name)
        .unwrap_or_else(|| panic!("SEXTANT_FUZZ_TARGET names no target: {name:?}"))
});

fuzz_target!(|bytes: &[u8]| {
    (TARGET.run)(bytes);
});
