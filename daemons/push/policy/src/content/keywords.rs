//! The keywords of all rules, found in one pass.

use std::collections::HashMap;

use aho_corasick::{AhoCorasick, MatchKind};
use hashbrown::HashSet;

use super::{KEYWORD_BYTES_MAX, KEYWORDS_BYTES_MAX, KEYWORDS_MAX, text};
use crate::config::Faults;

/// Gathers keywords.
#[derive(Debug, Default)]
pub(super) struct Gather {
    numbers: HashMap<String, usize>,
    /// Of each keyword, the rules that have it.
    rules: Vec<Vec<usize>>,
    count: usize,
    bytes: usize,
}

impl Gather {
    /// The keywords of a rule; what is wrong with them is told under `key`.
    pub(super) fn add(&mut self, rule: usize, words: &[String], key: &str, faults: &mut Faults) {
        self.count += words.len();
        self.bytes += words.iter().map(String::len).sum::<usize>();
        if self.is_too_much() {
            return;
        }
        for (word, place) in words.iter().zip(0..) {
            let folded = text::fold(word);
            if folded.trim().is_empty() || word.len() > KEYWORD_BYTES_MAX {
                faults.add(
                    format_args!("{key}[{place}]"),
                    format_args!("must have 1 to {KEYWORD_BYTES_MAX} bytes, and show"),
                );
                continue;
            }
            let number = *self.numbers.entry(folded).or_insert(self.rules.len());
            if number == self.rules.len() {
                self.rules.push(Vec::new());
            }
            self.rules[number].push(rule);
        }
    }

    fn is_too_much(&self) -> bool {
        self.count > KEYWORDS_MAX || self.bytes > KEYWORDS_BYTES_MAX
    }

    /// What finds them, if there are any.
    pub(super) fn build(self, faults: &mut Faults) -> Option<Keywords> {
        if self.is_too_much() {
            let most =
                format_args!("{KEYWORDS_MAX} keywords or {KEYWORDS_BYTES_MAX} bytes of them");
            faults.add("content", format_args!("there are more than {most}"));
            return None;
        }
        let mut words: Vec<(String, usize)> = self.numbers.into_iter().collect();
        words.sort_unstable_by_key(|(_, number)| *number);
        if words.is_empty() {
            return None;
        }
        let words = words.into_iter().map(|(word, _)| word);
        match AhoCorasick::builder().match_kind(MatchKind::Standard).build(words) {
            Ok(searcher) => Some(Keywords { searcher, rules: self.rules }),
            Err(error) => {
                faults.add("content", format_args!("the keywords: {error}"));
                None
            }
        }
    }
}

/// Finds keywords.
#[derive(Debug)]
pub(super) struct Keywords {
    searcher: AhoCorasick,
    /// Of each keyword, the rules that have it.
    rules: Vec<Vec<usize>>,
}

impl Keywords {
    /// Of each of `rules` rules, whether one of its keywords is whole in one of the texts.
    pub(super) fn find(&self, texts: [&str; 2], rules: usize) -> Vec<bool> {
        // Few of many, so that a message does not pay for those that it does not have.
        let mut found = HashSet::new();
        for text in texts {
            let folded = text::fold(text);
            for hit in self.searcher.find_overlapping_iter(&folded) {
                let number = hit.pattern().as_usize();
                if !found.contains(&number) && text::is_whole(&folded, hit.range()) {
                    found.insert(number);
                }
            }
        }
        let mut fit = vec![false; rules];
        found.iter().flat_map(|number| &self.rules[*number]).for_each(|rule| fit[*rule] = true);
        fit
    }
}
