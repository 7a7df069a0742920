//! Which time zones there are: those of the database that the program has in it. It is asked when a
//! device says another zone than before, and not when a record does: what was registered stays when
//! the database is another.

use std::collections::HashSet;
use std::sync::LazyLock;

use jiff::tz::TimeZoneDatabase;

static NAMES: LazyLock<HashSet<Box<str>>> = LazyLock::new(|| {
    let names = TimeZoneDatabase::bundled();
    names.available().map(|name| name.as_str().into()).collect()
});

/// Whether there is a time zone of this name, as it is written.
pub(crate) fn is_known(name: &str) -> bool {
    NAMES.contains(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::syntax::is_time_zone;

    #[test]
    fn every_time_zone_has_a_names_form() {
        assert!(NAMES.len() > 400, "{} zones", NAMES.len());
        let odd = NAMES.iter().filter(|name| !is_time_zone(name)).collect::<Vec<_>>();
        assert!(odd.is_empty(), "{odd:?}");
    }

    #[test]
    fn old_names_are_known_and_misspelt_ones_are_not() {
        for name in ["Asia/Shanghai", "UTC", "US/Pacific", "Asia/Calcutta", "Asia/Kolkata"] {
            assert!(is_known(name), "{name}");
        }
        for name in ["Asia/Shangai", "asia/shanghai", "Mars/Olympus", ""] {
            assert!(!is_known(name), "{name}");
        }
    }
}
