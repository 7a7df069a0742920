//! What messages may say. Rules are looked at in the order in which they are written; the first
//! that applies and fits decides (**allow**, **review** or **reject**), and what none fits is
//! allowed. So an exception is written before the rule that it is from.
//!
//! ```text
//!   title, text ──► folded ──► all keywords at once (Aho-Corasick) ─┐
//!               ──► each pattern (regex, linear time)              ─┼─► the first rule that fits
//!               ──► links ──► hosts, in ASCII (UTS 46)             ─┘
//! ```
//!
//! - **Keywords** are found whole, whatever their case, width or hidden characters: text and
//!   keyword are brought to one form first (NFKC, without ignorable characters, full case
//!   folding). Whole means that no letter or digit goes on at either end. In scripts that write
//!   without spaces between words (Chinese, Japanese, Korean with its particles, Thai, Lao, Khmer,
//!   Burmese) that cannot be told, so there a keyword is found anywhere.
//! - **Patterns** are regular expressions without backreferences, over title and text each as they
//!   were written. Their time is linear in the text; what they compile to is bounded.
//! - **Links** are what has `http://` or another scheme of the web, and names such as `example.com`
//!   that devices make links of. A host in a list stands for all below it, too. A name that a
//!   sentence's end makes (`Hello.World`) is a link only to rules against hosts, since there it
//!   has to be listed; a rule for hosts alone looks at those with a scheme or `www.`.
//!
//! What a template's variables bring is not looked at, nor is what an app reads by itself of a
//! payload: rules see what they are given as title, text and links.
//!
//! The time that a message takes is linear in its length, times the number of patterns; a message
//! that is too long to be looked at is rejected. 10,000 keywords, a pattern and a list of hosts
//! take two microseconds of a short message. The worst pattern that there may be, made to be so,
//! takes half a second of the longest.

mod keywords;
pub(crate) mod links;
pub(crate) mod rules;
pub(crate) mod text;

use std::cell::OnceCell;
use std::collections::HashSet;

use regex::{Regex, RegexBuilder};

use self::keywords::{Gather, Keywords};
use self::links::Link;
use self::rules::{Condition, ContentRule, Outcome};
use crate::config::{Faults, is_name};

/// Rules at most.
pub const RULES_MAX: usize = 1_000;
/// Keywords of all rules at most.
pub const KEYWORDS_MAX: usize = 100_000;
/// Their bytes together at most. What finds them takes 15 times as much memory, and 60 times for
/// the second that it takes to make it.
pub const KEYWORDS_BYTES_MAX: usize = 2 << 20;
/// The longest keyword, in bytes.
pub const KEYWORD_BYTES_MAX: usize = 128;
/// Patterns of all rules at most.
pub const PATTERNS_MAX: usize = 100;
/// The longest pattern, in bytes.
pub const PATTERN_BYTES_MAX: usize = 1_024;
/// What a pattern may compile to, in bytes, and what its search may remember.
pub const PATTERN_COMPILED_BYTES_MAX: usize = 256 << 10;
/// Title, text and links together at most, in bytes.
pub const CONTENT_BYTES_MAX: usize = 16 << 10;
/// Hosts of a rule at most.
pub const HOSTS_MAX: usize = 100_000;
/// The longest reason, in bytes.
pub const REASON_BYTES_MAX: usize = 256;

/// What rules look at of a message.
#[derive(Clone, Copy, Debug, Default)]
pub struct Content<'a> {
    /// Shown above.
    pub title: &'a str,
    /// Shown below.
    pub text: &'a str,
    /// Where a click leads, and other addresses beside the text.
    pub links: &'a [&'a str],
    /// What kind of message its sender says it is.
    pub category: Option<&'a str>,
}

impl Content<'_> {
    /// Whether it is too long to be looked at.
    pub fn is_too_long(&self) -> bool {
        let links: usize = self.links.iter().map(|link| link.len()).sum();
        self.title.len() + self.text.len() + links > CONTENT_BYTES_MAX
    }
}

/// Which rule decided, and what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit<'r> {
    /// The rule's name.
    pub rule: &'r str,
    /// What it decided.
    pub outcome: Outcome,
    /// Why, for sender and reviewer.
    pub reason: &'r str,
}

#[derive(Debug)]
enum Test {
    Always,
    /// Among the keywords of all rules.
    Keywords,
    Pattern(Box<Regex>),
    LinksTo(HashSet<Box<str>>),
    LinksOutside(HashSet<Box<str>>),
    LongerThan(usize),
}

#[derive(Debug)]
struct Rule {
    name: Box<str>,
    reason: Box<str>,
    outcome: Outcome,
    apps: Option<HashSet<Box<str>>>,
    classes: Option<HashSet<Box<str>>>,
    categories: Option<HashSet<Box<str>>>,
    test: Test,
}

/// The rules about content, ready to be asked.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    rules: Vec<Rule>,
    keywords: Option<Keywords>,
}

/// What of a message is worked out when a rule first asks for it.
struct Reading<'a> {
    content: &'a Content<'a>,
    /// For each rule whether one of its keywords is there.
    keywords: OnceCell<Vec<bool>>,
    links: OnceCell<Vec<Link>>,
}

impl Contents {
    /// Reads the rules; what is wrong with them is told.
    pub(crate) fn new(rules: &[ContentRule], faults: &mut Faults) -> Contents {
        faults.require(
            rules.len() <= RULES_MAX,
            "content",
            format_args!("there may be {RULES_MAX} at most"),
        );
        let is_pattern = |rule: &&ContentRule| matches!(rule.when, Condition::Pattern(_));
        let patterns = rules.iter().filter(is_pattern).count();
        faults.require(
            patterns <= PATTERNS_MAX,
            "content",
            format_args!("there may be {PATTERNS_MAX} patterns at most"),
        );
        let mut contents = Contents::default();
        let mut keywords = Gather::default();
        let mut names = HashSet::new();
        for (at, rule) in rules.iter().take(RULES_MAX).enumerate() {
            let key = format!("content[{at}]");
            faults.require(
                names.insert(&rule.name),
                format_args!("{key}.name"),
                "another rule has this name",
            );
            check(rule, &key, faults);
            if let Condition::Keywords(words) = &rule.when {
                keywords.add(at, words, &format!("{key}.when.keywords"), faults);
            }
            if let Some(test) = test_of(&rule.when, &key, faults) {
                contents.rules.push(Rule::new(rule, test));
            }
        }
        contents.keywords = keywords.build(faults);
        contents
    }

    /// The first rule that applies to a message of an app and a class, and fits.
    pub(crate) fn decide(&self, app: &str, class: &str, content: &Content<'_>) -> Option<Hit<'_>> {
        let reading = Reading { content, keywords: OnceCell::new(), links: OnceCell::new() };
        let hit = self.rules.iter().enumerate().find(|(at, rule)| {
            rule.applies(app, class, content.category) && self.fits(*at, rule, &reading)
        });
        hit.map(|(_, Rule { name, outcome, reason, .. })| Hit {
            rule: name,
            outcome: *outcome,
            reason,
        })
    }

    fn fits(&self, at: usize, rule: &Rule, reading: &Reading<'_>) -> bool {
        let content = reading.content;
        match &rule.test {
            Test::Always => true,
            Test::LongerThan(chars) => {
                let longer = |text: &str| text.chars().nth(*chars).is_some();
                longer(content.title) || longer(content.text)
            }
            Test::Keywords => reading.keywords.get_or_init(|| self.find_keywords(content))[at],
            Test::Pattern(pattern) => {
                pattern.is_match(content.title) || pattern.is_match(content.text)
            }
            Test::LinksTo(hosts) => {
                let listed =
                    |link: &Link| link.host.as_deref().is_some_and(|host| below(host, hosts));
                reading.links().iter().any(listed)
            }
            Test::LinksOutside(hosts) => {
                let listed =
                    |link: &Link| link.host.as_deref().is_some_and(|host| below(host, hosts));
                reading.links().iter().any(|link| link.is_meant && !listed(link))
            }
        }
    }

    fn find_keywords(&self, content: &Content<'_>) -> Vec<bool> {
        let texts = [content.title, content.text];
        let found = self.keywords.as_ref().map(|words| words.find(texts, self.rules.len()));
        found.unwrap_or_else(|| vec![false; self.rules.len()])
    }
}

impl Reading<'_> {
    fn links(&self) -> &[Link] {
        self.links.get_or_init(|| {
            let content = self.content;
            let mut found = Vec::new();
            for text in [content.title, content.text].iter().chain(content.links) {
                links::find(text, &mut found);
            }
            found
        })
    }
}

impl Rule {
    fn new(rule: &ContentRule, test: Test) -> Rule {
        let set = |names: &[String]| {
            (!names.is_empty()).then(|| names.iter().map(|name| name.as_str().into()).collect())
        };
        Rule {
            name: rule.name.as_str().into(),
            reason: rule.reason.as_str().into(),
            outcome: rule.outcome,
            apps: set(&rule.apps),
            classes: set(&rule.classes),
            categories: set(&rule.categories),
            test,
        }
    }

    fn applies(&self, app: &str, class: &str, category: Option<&str>) -> bool {
        let has = |set: &Option<HashSet<Box<str>>>, name: Option<&str>| {
            set.as_ref().is_none_or(|set| name.is_some_and(|name| set.contains(name)))
        };
        has(&self.apps, Some(app))
            && has(&self.classes, Some(class))
            && has(&self.categories, category)
    }
}

fn check(rule: &ContentRule, key: &str, faults: &mut Faults) {
    let name = "a name is 1 to 64 of a-z, 0-9, \".\", \"_\" and \"-\"";
    faults.require(is_name(&rule.name), format_args!("{key}.name"), name);
    faults.require(
        rule.reason.len() <= REASON_BYTES_MAX,
        format_args!("{key}.reason"),
        format_args!("must have {REASON_BYTES_MAX} bytes or less"),
    );
    for (part, names) in
        [("apps", &rule.apps), ("classes", &rule.classes), ("categories", &rule.categories)]
    {
        for (other, place) in names.iter().zip(0..) {
            faults.require(is_name(other), format_args!("{key}.{part}[{place}]"), name);
        }
    }
}

fn test_of(when: &Condition, key: &str, faults: &mut Faults) -> Option<Test> {
    match when {
        Condition::Always => Some(Test::Always),
        Condition::Keywords(_) => Some(Test::Keywords),
        Condition::LongerThan(chars) => Some(Test::LongerThan(*chars as usize)),
        Condition::Pattern(pattern) => {
            pattern_of(pattern, &format!("{key}.when.pattern"), faults).map(Test::Pattern)
        }
        Condition::LinksTo(hosts) => {
            hosts_of(hosts, &format!("{key}.when.links_to"), faults).map(Test::LinksTo)
        }
        Condition::LinksOutside(hosts) => {
            hosts_of(hosts, &format!("{key}.when.links_outside"), faults).map(Test::LinksOutside)
        }
    }
}

fn pattern_of(pattern: &str, key: &str, faults: &mut Faults) -> Option<Box<Regex>> {
    if pattern.len() > PATTERN_BYTES_MAX {
        faults.add(key, format_args!("must have {PATTERN_BYTES_MAX} bytes or less"));
        return None;
    }
    let compiled = RegexBuilder::new(pattern)
        .size_limit(PATTERN_COMPILED_BYTES_MAX)
        .dfa_size_limit(PATTERN_COMPILED_BYTES_MAX)
        .nest_limit(64)
        .build();
    compiled.map(Box::new).map_err(|error| faults.add(key, error)).ok()
}

fn hosts_of(hosts: &[String], key: &str, faults: &mut Faults) -> Option<HashSet<Box<str>>> {
    if hosts.len() > HOSTS_MAX {
        faults.add(key, format_args!("there may be {HOSTS_MAX} at most"));
        return None;
    }
    let mut read = HashSet::new();
    for (host, place) in hosts.iter().zip(0..) {
        match links::ascii_host(host) {
            Some(host) => drop(read.insert(host.into())),
            None => faults.add(
                format_args!("{key}[{place}]"),
                "must be a host such as \"example.com\", which stands for all below it",
            ),
        }
    }
    Some(read)
}

/// Whether a host, or one that it is below, is in a list.
fn below(host: &str, hosts: &HashSet<Box<str>>) -> bool {
    let parents = std::iter::successors(Some(host), |host| Some(host.split_once('.')?.1));
    parents.into_iter().any(|host| hosts.contains(host))
}

#[cfg(test)]
mod tests;
