//! Rules about content as they are configured.

use serde::{Deserialize, Serialize};

/// A rule about what messages say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContentRule {
    /// Names it in the audit log.
    pub name: String,
    /// What has to hold for it to fit.
    pub when: Condition,
    /// What becomes of a message that it fits.
    pub outcome: Outcome,
    /// Why, for sender and reviewer.
    #[serde(default)]
    pub reason: String,
    /// Only for messages of these apps; empty is all.
    #[serde(default)]
    pub apps: Vec<String>,
    /// Only for messages of these classes; empty is all.
    #[serde(default)]
    pub classes: Vec<String>,
    /// Only for messages of these categories; empty is all, and those without one.
    #[serde(default)]
    pub categories: Vec<String>,
}

/// What has to hold of a message: `"always"`, or a table of one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// Every message that the rule applies to.
    Always,
    /// Title or text have one of these words or phrases.
    Keywords(Vec<String>),
    /// Title or text match this regular expression.
    Pattern(String),
    /// There is a link to one of these hosts, or to one below them.
    LinksTo(Vec<String>),
    /// There is a link to a host that is none of these and below none.
    LinksOutside(Vec<String>),
    /// Title or text have more characters than this.
    LongerThan(u32),
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It goes on; no later rule is looked at.
    Allow,
    /// It is held until somebody has approved it.
    Review,
    /// It is not sent.
    Reject,
}
