//! Topic names and topic filters (section 4.7): what is well formed, what matches what, and how
//! long and deep they may be.
//!
//! ```text
//! name      sport/tennis/player1              levels: sport, tennis, player1
//! filter    sport/+/#                         + one level, # all that follow
//! shared    $share/group/sport/+              the group "group" of filter sport/+
//! ```

/// Why a name or a filter is not well formed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TopicError {
    /// It has no character `[MQTT-4.7.3-1]`.
    #[error("it is empty [MQTT-4.7.3-1]")]
    Empty,
    /// It holds U+0000 `[MQTT-4.7.3-2]`.
    #[error("it holds the null character [MQTT-4.7.3-2]")]
    Null,
    /// It is longer than 65,535 bytes `[MQTT-4.7.3-3]`, or than the limit.
    #[error("it is too long [MQTT-4.7.3-3]")]
    TooLong,
    /// It has more levels than the limit.
    #[error("it has too many levels")]
    TooDeep,
    /// A name holds `+` or `#` `[MQTT-4.7.0-1]`.
    #[error("a topic name holds a wildcard [MQTT-4.7.0-1]")]
    WildcardInName,
    /// `#` is not alone in the last level `[MQTT-4.7.1-1]`, or `+` not alone in its level
    /// `[MQTT-4.7.1-2]`.
    #[error("a wildcard does not stand alone in its level [MQTT-4.7.1-1]")]
    Wildcard,
    /// `$share` without a group, with a wildcard in it, or without a filter `[MQTT-4.8.2-1]`.
    #[error("the share name of the filter is missing or holds a wildcard [MQTT-4.8.2-1]")]
    Share,
}

/// Checks a topic name.
///
/// # Errors
/// Why it is none.
pub fn check_name(name: &str) -> Result<(), TopicError> {
    if name.is_empty() {
        return Err(TopicError::Empty); // [MQTT-4.7.3-1]
    }
    if name.len() > usize::from(u16::MAX) {
        return Err(TopicError::TooLong); // [MQTT-4.7.3-3]
    }
    // One pass without branches, which the compiler makes a vector loop of.
    let bad = name.bytes().fold(false, |bad, byte| bad | matches!(byte, 0 | b'+' | b'#'));
    match bad {
        false => Ok(()),
        true if name.contains('\0') => Err(TopicError::Null), // [MQTT-4.7.3-2]
        true => Err(TopicError::WildcardInName),              // [MQTT-4.7.0-1]
    }
}

/// A well-formed topic filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Filter<'a> {
    /// The group of a shared subscription.
    pub share: Option<&'a str>,
    /// What names are matched with, without `$share/group/`.
    pub filter: &'a str,
}

impl<'a> Filter<'a> {
    /// Checks a topic filter and takes a `$share/group/` off it (section 4.8.2).
    ///
    /// # Errors
    /// Why it is none.
    pub fn parse(text: &'a str) -> Result<Filter<'a>, TopicError> {
        if text.is_empty() {
            return Err(TopicError::Empty); // [MQTT-4.7.3-1]
        }
        if text.len() > usize::from(u16::MAX) {
            return Err(TopicError::TooLong); // [MQTT-4.7.3-3]
        }
        if text.as_bytes().contains(&0) {
            return Err(TopicError::Null); // [MQTT-4.7.3-2]
        }
        let (share, filter) = match text.strip_prefix("$share") {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => {
                // [MQTT-4.8.2-1], [MQTT-4.8.2-2]
                let (group, filter) = rest
                    .strip_prefix('/')
                    .and_then(|rest| rest.split_once('/'))
                    .ok_or(TopicError::Share)?;
                if group.is_empty() || group.contains(['+', '#']) || filter.is_empty() {
                    return Err(TopicError::Share);
                }
                (Some(group), filter)
            }
            _ => (None, text),
        };
        check_wildcards(filter)?;
        Ok(Filter { share, filter })
    }

    /// Whether the filter has a wildcard.
    pub fn has_wildcard(&self) -> bool {
        self.filter.contains(['+', '#'])
    }

    /// Whether a topic name matches.
    pub fn matches(&self, name: &str) -> bool {
        matches(self.filter, name)
    }
}

fn check_wildcards(filter: &str) -> Result<(), TopicError> {
    let mut rest = filter;
    loop {
        let (level, after) = match rest.split_once('/') {
            Some((level, after)) => (level, Some(after)),
            None => (rest, None),
        };
        let alone = level.len() == 1;
        // [MQTT-4.7.1-1]
        if level.contains('#') && !(alone && after.is_none()) {
            return Err(TopicError::Wildcard);
        }
        // [MQTT-4.7.1-2]
        if level.contains('+') && !alone {
            return Err(TopicError::Wildcard);
        }
        match after {
            Some(after) => rest = after,
            None => return Ok(()),
        }
    }
}

/// The levels of a name or filter, in order; at least one, possibly empty.
pub fn levels(text: &str) -> std::str::Split<'_, char> {
    text.split('/')
}

/// Whether the topic `name` matches `filter` (well formed, without `$share/group/`).
///
/// Nothing is normalised and case counts `[MQTT-4.7.3-4]`.
pub fn matches(filter: &str, name: &str) -> bool {
    // [MQTT-4.7.2-1]
    if name.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut names = levels(name);
    for pattern in levels(filter) {
        if pattern == "#" {
            // Also matches the parent: "sport/#" matches "sport" (section 4.7.1.2).
            return true;
        }
        match names.next() {
            Some(level) if pattern == "+" || pattern == level => {}
            _ => return false,
        }
    }
    names.next().is_none()
}

/// How long and deep names and filters may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicLimits {
    /// Longest name or filter, bytes.
    pub bytes_max: u16,
    /// Most levels.
    pub levels_max: u16,
}

impl Default for TopicLimits {
    /// Whatever MQTT allows, and at most 128 levels.
    fn default() -> Self {
        TopicLimits { bytes_max: u16::MAX, levels_max: 128 }
    }
}

impl TopicLimits {
    /// Checks a well-formed name or filter against the limits.
    ///
    /// # Errors
    /// [`TopicError::TooLong`] or [`TopicError::TooDeep`].
    pub fn check(&self, text: &str) -> Result<(), TopicError> {
        if text.len() > usize::from(self.bytes_max) {
            return Err(TopicError::TooLong);
        }
        let levels_max = usize::from(self.levels_max);
        // A text shorter than the limit cannot have more levels than it.
        if text.len() >= levels_max
            && text.bytes().filter(|&byte| byte == b'/').count() >= levels_max
        {
            return Err(TopicError::TooDeep);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // [MQTT-4.7.0-1], [MQTT-4.7.3-1], [MQTT-4.7.3-2], [MQTT-4.7.3-3]
    #[test]
    fn mqtt_4_7_0_1_and_4_7_3_names_are_checked() {
        assert_eq!(check_name("a/b//c "), Ok(()));
        assert_eq!(check_name("/"), Ok(()));
        assert_eq!(check_name(""), Err(TopicError::Empty));
        assert_eq!(check_name("a\0"), Err(TopicError::Null));
        assert_eq!(check_name("a/+"), Err(TopicError::WildcardInName));
        assert_eq!(check_name("a#"), Err(TopicError::WildcardInName));
        assert_eq!(check_name(&"a".repeat(65_536)), Err(TopicError::TooLong));
        assert_eq!(check_name(&"a".repeat(65_535)), Ok(()));
    }

    // [MQTT-4.7.1-1], [MQTT-4.7.1-2]
    #[test]
    fn mqtt_4_7_1_1_and_2_wildcards_stand_alone() {
        for good in ["#", "+", "+/#", "/+", "+/+/a", "a/#", "sport/+/player1", "a//#", "$SYS/#"] {
            let filter = Filter::parse(good).unwrap();
            assert_eq!((filter.share, filter.filter), (None, good));
        }
        for bad in ["a#", "a/#/b", "#/", "a+", "a/b+/c", "+a", "##", "++", "a/+#"] {
            assert_eq!(Filter::parse(bad), Err(TopicError::Wildcard), "{bad}");
        }
        assert_eq!(Filter::parse(""), Err(TopicError::Empty));
        assert_eq!(Filter::parse("a\0"), Err(TopicError::Null));
        assert_eq!(Filter::parse(&"a".repeat(65_536)), Err(TopicError::TooLong));
    }

    // [MQTT-4.8.2-1], [MQTT-4.8.2-2]
    #[test]
    fn mqtt_4_8_2_shared_filters_have_a_group_and_a_filter() {
        let filter = Filter::parse("$share/g/+/#").unwrap();
        assert_eq!((filter.share, filter.filter), (Some("g"), "+/#"));
        assert!(filter.matches("a") && filter.has_wildcard());
        assert_eq!(Filter::parse("$share/g//").unwrap().filter, "/");
        for bad in
            ["$share", "$share/", "$share/g", "$share/g/", "$share//a", "$share/+/a", "$share/g#/a"]
        {
            assert_eq!(Filter::parse(bad), Err(TopicError::Share), "{bad}");
        }
        // Another name that only begins alike.
        assert_eq!(Filter::parse("$shared/a").unwrap().share, None);
    }

    #[test]
    fn mqtt_4_7_1_the_examples_of_the_standard_match() {
        let matching = [
            ("sport/tennis/player1/#", "sport/tennis/player1"),
            ("sport/tennis/player1/#", "sport/tennis/player1/ranking"),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon"),
            ("sport/#", "sport"),
            ("#", "a/b"),
            ("sport/tennis/+", "sport/tennis/player1"),
            ("sport/+", "sport/"),
            ("+/+", "/finance"),
            ("/+", "/finance"),
            ("$SYS/#", "$SYS/monitor/Clients"),
            ("$SYS/monitor/+", "$SYS/monitor/Clients"),
            ("a/b", "a/b"),
            ("+/b/#", "a/b"),
        ];
        for (filter, name) in matching {
            assert!(matches(filter, name), "{filter} {name}");
        }
        let different = [
            ("sport/tennis/+", "sport/tennis/player1/ranking"),
            ("sport/+", "sport"),
            ("+", "/finance"),
            ("a/b", "a/b/c"),
            ("a/b/c", "a/b"),
            ("a/B", "a/b"),
            ("a", "a/"),
            ("sport/tennis/player1/#", "sport/tennis/player12"),
        ];
        for (filter, name) in different {
            assert!(!matches(filter, name), "{filter} {name}");
        }
    }

    // [MQTT-4.7.2-1]
    #[test]
    fn mqtt_4_7_2_1_leading_wildcards_do_not_match_dollar_names() {
        for filter in ["#", "+/monitor/Clients", "+/#"] {
            assert!(!matches(filter, "$SYS/monitor/Clients"), "{filter}");
        }
        assert!(matches("a/+", "a/$b"));
    }

    #[test]
    fn limits_count_bytes_and_levels() {
        let limits = TopicLimits { bytes_max: 6, levels_max: 3 };
        assert_eq!(limits.check("a/b/c"), Ok(()));
        assert_eq!(limits.check("a/b/c/"), Err(TopicError::TooDeep));
        assert_eq!(limits.check("///"), Err(TopicError::TooDeep));
        assert_eq!(limits.check("//"), Ok(()));
        assert_eq!(limits.check("abcdefg"), Err(TopicError::TooLong));
        assert_eq!(levels("//").count(), 3);
    }
}
