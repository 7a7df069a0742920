//! What a client may publish and subscribe to.
//!
//! ```text
//!   publish   d/+/cmd          topics that match the filter
//!   subscribe d/#              filters that the filter covers
//!   all       d/{client}/#     both, below the client's own id
//! ```
//!
//! A filter covers another if it matches every topic that the other matches, whatever will ever
//! be published; so a client never gets a topic through a wildcard that it could not name. One
//! rule has to cover a subscription by itself. There is nothing to deny: what no rule allows is
//! refused.
//!
//! `{client}` and `{user}` stand for one whole level each and are compared, not pasted in: a
//! client whose id is `+` gains nothing by it. An id that cannot be one level of a topic (it is
//! empty, holds `/`, `+`, `#` or a null character, or begins with `$`) matches no placeholder.

use std::fmt;

use sextant_mqtt::topic::{self, Filter, TopicError};

/// The longest rule, in bytes.
const RULE_BYTES_MAX: usize = 4096;

/// Why a text is no rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RuleError {
    /// It does not begin with one of the three words, or ends after it.
    #[error("expected \"publish FILTER\", \"subscribe FILTER\" or \"all FILTER\"")]
    Form,
    /// The filter is not well formed.
    #[error("the filter \"{filter}\" is not well formed: {why}")]
    Filter {
        /// What was written.
        filter: String,
        /// What is wrong with it.
        why: TopicError,
    },
    /// The filter is one of a shared subscription.
    #[error("write the filter without its `$share/group/`: a rule holds for every group")]
    Shared,
    /// A brace in a level that is no placeholder.
    #[error("the level \"{0}\" is neither `{{client}}` nor `{{user}}`")]
    Placeholder(String),
    /// It is longer than 4096 bytes.
    #[error("a rule has at most {RULE_BYTES_MAX} bytes")]
    TooLong,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Level {
    Literal(Box<str>),
    /// `+`
    One,
    /// `#`, always the last
    Rest,
    Client,
    User,
}

/// What placeholders stand for.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a> {
    /// `{client}`: the client identifier.
    pub client: &'a str,
    /// `{user}`: the user name.
    pub user: &'a str,
}

impl Level {
    /// Whether this level, which is not `#`, takes the level `name` of a topic.
    fn takes(&self, name: &str, names: Names<'_>) -> bool {
        match self {
            Level::Literal(literal) => **literal == *name,
            Level::One | Level::Rest => true,
            Level::Client => is_level(names.client) && names.client == name,
            Level::User => is_level(names.user) && names.user == name,
        }
    }

    fn is_wildcard(&self) -> bool {
        matches!(self, Level::One | Level::Rest)
    }
}

/// Whether `text` can be one level of a topic that is not the server's own.
pub fn is_level(text: &str) -> bool {
    !text.is_empty() && !text.starts_with('$') && !text.contains(['/', '+', '#', '\0'])
}

/// One thing that is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    publish: bool,
    subscribe: bool,
    levels: Box<[Level]>,
}

impl Rule {
    /// Reads `publish FILTER`, `subscribe FILTER` or `all FILTER`.
    ///
    /// # Errors
    /// Why it is none.
    pub fn parse(text: &str) -> Result<Rule, RuleError> {
        if text.len() > RULE_BYTES_MAX {
            return Err(RuleError::TooLong);
        }
        let (verb, filter) = text.trim().split_once(' ').ok_or(RuleError::Form)?;
        let (publish, subscribe) = match verb {
            "publish" => (true, false),
            "subscribe" => (false, true),
            "all" => (true, true),
            _ => return Err(RuleError::Form),
        };
        let filter = filter.trim_start();
        let parsed = Filter::parse(filter)
            .map_err(|why| RuleError::Filter { filter: filter.to_owned(), why })?;
        if parsed.share.is_some() {
            return Err(RuleError::Shared);
        }
        let levels = topic::levels(filter).map(|level| match level {
            "+" => Ok(Level::One),
            "#" => Ok(Level::Rest),
            "{client}" => Ok(Level::Client),
            "{user}" => Ok(Level::User),
            _ if level.contains(['{', '}']) => Err(RuleError::Placeholder(level.to_owned())),
            _ => Ok(Level::Literal(level.into())),
        });
        Ok(Rule { publish, subscribe, levels: levels.collect::<Result<_, _>>()? })
    }

    /// Whether the topic `name` matches the rule's filter, as [`topic::matches`] has it.
    fn matches(&self, name: &str, names: Names<'_>) -> bool {
        // [MQTT-4.7.2-1]
        if name.starts_with('$') && self.levels[0].is_wildcard() {
            return false;
        }
        let mut parts = topic::levels(name);
        for level in &self.levels {
            if *level == Level::Rest {
                return true;
            }
            match parts.next() {
                Some(part) if level.takes(part, names) => {}
                _ => return false,
            }
        }
        parts.next().is_none()
    }

    /// Whether every topic that the well-formed `filter` matches is matched by the rule's.
    fn covers(&self, filter: &str, names: Names<'_>) -> bool {
        // [MQTT-4.7.2-1]
        if filter.starts_with('$') && self.levels[0].is_wildcard() {
            return false;
        }
        // No topic is empty, so what would be the parent here is none.
        let filter = match filter {
            "#" => "+/#",
            "/#" => "/+/#",
            _ => filter,
        };
        let mut parts = topic::levels(filter);
        for level in &self.levels {
            if *level == Level::Rest {
                return true; // The parent level too, which `parts` may just have ended at.
            }
            let covered = match parts.next() {
                None | Some("#") => false,
                Some("+") => *level == Level::One,
                Some(part) => level.takes(part, names),
            };
            if !covered {
                return false;
            }
        }
        parts.next().is_none()
    }
}

/// Writes the rule as it is parsed.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.publish, self.subscribe) {
            (true, true) => "all ",
            (true, false) => "publish ",
            _ => "subscribe ",
        })?;
        for (index, level) in self.levels.iter().enumerate() {
            if index > 0 {
                f.write_str("/")?;
            }
            f.write_str(match level {
                Level::Literal(literal) => literal,
                Level::One => "+",
                Level::Rest => "#",
                Level::Client => "{client}",
                Level::User => "{user}",
            })?;
        }
        Ok(())
    }
}

/// All that somebody is allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules(Box<[Rule]>);

impl Rules {
    /// These and more.
    pub fn with(&self, more: impl IntoIterator<Item = Rule>) -> Rules {
        self.0.iter().cloned().chain(more).collect()
    }

    /// Whether one of the rules lets the topic `name` be published to.
    pub fn may_publish(&self, name: &str, names: Names<'_>) -> bool {
        self.0.iter().any(|rule| rule.publish && rule.matches(name, names))
    }

    /// Whether one of the rules lets `filter` be subscribed to; for a shared subscription, the
    /// filter behind `$share/group/`. What is not well formed is not allowed.
    pub fn may_subscribe(&self, filter: &str, names: Names<'_>) -> bool {
        let Ok(filter) = Filter::parse(filter) else { return false };
        self.0.iter().any(|rule| rule.subscribe && rule.covers(filter.filter, names))
    }
}

impl FromIterator<Rule> for Rules {
    fn from_iter<T: IntoIterator<Item = Rule>>(rules: T) -> Self {
        Rules(rules.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    const NAMES: Names<'_> = Names { client: "c1", user: "u1" };

    fn rules(texts: &[&str]) -> Rules {
        texts.iter().map(|text| Rule::parse(text).expect(text)).collect()
    }

    #[test]
    fn a_rule_is_a_word_and_a_filter() {
        for text in ["publish d/+/cmd", "subscribe d/#", "all {user}/{client}/#", "all $SYS/#"] {
            assert_eq!(Rule::parse(text).unwrap().to_string(), text);
        }
        for text in ["", "publish", "publish ", "write a/b", "d/#", "Publish a", "publish\ta"] {
            assert_eq!(Rule::parse(text), Err(RuleError::Form), "{text}");
        }
        assert!(matches!(Rule::parse("all a#"), Err(RuleError::Filter { .. })));
        assert_eq!(Rule::parse("subscribe $share/g/a"), Err(RuleError::Shared));
        for text in ["all d/{client}x", "all d/{device}", "all {}/a"] {
            assert!(matches!(Rule::parse(text), Err(RuleError::Placeholder(_))), "{text}");
        }
        assert_eq!(Rule::parse(&format!("all {}", "a".repeat(5000))), Err(RuleError::TooLong));
    }

    #[test]
    fn publishing_and_subscribing_are_allowed_apart() {
        let rules = rules(&["publish p/#", "subscribe s/#", "all a/#"]);
        assert!(rules.may_publish("p/1", NAMES) && !rules.may_subscribe("p/1", NAMES));
        assert!(rules.may_subscribe("s/1", NAMES) && !rules.may_publish("s/1", NAMES));
        assert!(rules.may_publish("a", NAMES) && rules.may_subscribe("a/+/#", NAMES));
        assert!(!rules.may_publish("b", NAMES) && !Rules::default().may_publish("p/1", NAMES));
    }

    #[test]
    fn a_subscription_must_be_covered() {
        let allowed = |rule: &str, filter: &str| rules(&[rule]).may_subscribe(filter, NAMES);
        for (rule, filter) in [
            ("subscribe d/#", "d"),
            ("subscribe d/#", "d/#"),
            ("subscribe d/#", "d/+/x"),
            ("subscribe d/+", "d/+"),
            ("subscribe d/+", "d/"),
            ("subscribe +/b", "a/b"),
            ("subscribe #", "#"),
            ("subscribe #", "+/a/#"),
            ("subscribe +/#", "#"),
            ("subscribe $SYS/#", "$SYS/a"),
            ("subscribe d/#", "$share/g/d/+"),
            ("subscribe d/{client}/#", "d/c1/#"),
            ("subscribe d/+/#", "d/c1/#"),
        ] {
            assert!(allowed(rule, filter), "{rule} {filter}");
        }
        for (rule, filter) in [
            ("subscribe d/+", "d/#"),
            ("subscribe d/+/#", "d/#"),
            ("subscribe d/1", "d/+"),
            ("subscribe d/1", "#"),
            ("subscribe d/#", "#"),
            ("subscribe d/#", "+/#"),
            ("subscribe #", "$SYS/#"),
            ("subscribe +/a", "$SYS/a"),
            ("subscribe d/#", "$share/d/#"),
            ("subscribe d/#", "$share/g/e"),
            ("subscribe d/{client}/#", "d/+/#"),
            ("subscribe d/{client}/#", "d/c2/#"),
            ("subscribe d/#", "d/a#"),
            ("subscribe d/#", ""),
        ] {
            assert!(!allowed(rule, filter), "{rule} {filter}");
        }
    }

    #[test]
    fn an_id_with_wildcards_gains_nothing() {
        let rules = rules(&["all d/{client}/#", "all {user}/#"]);
        for id in ["+", "#", "", "$SYS", "a/b", "a\0", "{client}"] {
            let names = Names { client: id, user: id };
            assert!(!rules.may_publish("d/other/x", names), "{id}");
            assert!(!rules.may_subscribe("d/+/#", names), "{id}");
            assert!(!rules.may_subscribe("+/#", names), "{id}");
            assert!(!rules.may_subscribe("#", names), "{id}");
            assert!(!rules.may_publish("$SYS/x", names), "{id}");
            assert!(!rules.may_publish("d//x", names), "{id}");
            assert!(!rules.may_publish("d/a/b/x", names), "{id}");
        }
        let names = Names { client: "{client}", user: "u" };
        assert!(rules.may_publish("d/{client}/x", names));
    }

    fn level() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec!["a", "b", "", "c1", "$x", "+", "+"])
    }

    fn filter() -> impl Strategy<Value = String> {
        (prop::collection::vec(level(), 0..4), any::<bool>())
            .prop_map(|(mut levels, rest)| {
                if rest {
                    levels.push("#");
                }
                levels.join("/")
            })
            .prop_filter("a filter is not empty", |filter| !filter.is_empty())
    }

    fn rule() -> impl Strategy<Value = Rule> {
        (filter(), any::<bool>()).prop_map(|(filter, placeholder)| {
            let filter = if placeholder { filter.replace("c1", "{client}") } else { filter };
            Rule::parse(&format!("all {filter}")).expect("it is well formed")
        })
    }

    /// Topics that a filter matches, such that if another filter (of few levels) matches all of
    /// them it matches all that this one does: wildcards stand for something found nowhere else.
    fn witnesses(filter: &str) -> Vec<String> {
        let (fixed, rest) = match filter.strip_suffix('#') {
            Some(fixed) => (fixed.strip_suffix('/'), true),
            None => (Some(filter), false),
        };
        let levels: Vec<&str> = fixed.map_or(Vec::new(), |fixed| fixed.split('/').collect());
        let levels: Vec<&str> =
            levels.iter().map(|level| if *level == "+" { "fresh" } else { level }).collect();
        let more = if rest { 0..=6 } else { 0..=0 };
        more.map(|more| [levels.clone(), vec!["fresh"; more]].concat().join("/"))
            .filter(|name| !name.is_empty())
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn rules_match_as_filters_do(rule in rule(), name in filter()) {
            let name = name.replace(['+', '#'], "z");
            let filter = rule.to_string().replace("{client}", "c1");
            let filter = filter.strip_prefix("all ").unwrap();
            prop_assert_eq!(rule.matches(&name, NAMES), topic::matches(filter, &name));
        }

        #[test]
        fn what_a_covered_filter_matches_the_rule_matches(
            rule in rule(), requested in filter(), name in filter(),
        ) {
            let name = name.replace(['+', '#'], "z");
            if rule.covers(&requested, NAMES) && topic::matches(&requested, &name) {
                prop_assert!(rule.matches(&name, NAMES));
            }
        }

        #[test]
        fn a_filter_is_covered_exactly_if_all_it_matches_is_allowed(
            rule in rule(), requested in filter(),
        ) {
            let names = witnesses(&requested);
            prop_assert!(names.iter().all(|name| topic::matches(&requested, name)));
            let allowed = names.iter().all(|name| rule.matches(name, NAMES));
            prop_assert_eq!(rule.covers(&requested, NAMES), allowed, "{:?}", names);
        }

        #[test]
        fn no_text_panics(rule in ".{0,40}", filter in ".{0,40}") {
            if let Ok(rule) = Rule::parse(&format!("all {rule}")) {
                let rules = Rules::from_iter([rule]);
                rules.may_publish(&filter, NAMES);
                rules.may_subscribe(&filter, Names { client: &filter, user: &filter });
            }
        }
    }
}
