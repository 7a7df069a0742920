//! Texts brought to one form, and where words end in them.

use std::ops::Range;

use icu_normalizer::ComposingNormalizerBorrowed;
use unicase::UniCase;

/// One form for all texts that look alike: compatibility characters as those that they stand for,
/// nothing that does not show, no difference of case.
pub(super) fn fold(text: &str) -> String {
    // For what most texts are, the three steps are one.
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    let normal = ComposingNormalizerBorrowed::new_nfkc().normalize(text);
    let shown: String = normal.chars().filter(|c| !is_hidden(*c)).collect();
    UniCase::unicode(shown).to_folded_case()
}

/// Soft hyphens, joiners, marks of direction and variation: what splits a word and does not show.
fn is_hidden(c: char) -> bool {
    matches!(
        c,
        '\u{AD}' | '\u{34F}' | '\u{61C}' | '\u{115F}' | '\u{1160}' | '\u{17B4}' | '\u{17B5}'
            | '\u{180B}'..='\u{180F}' | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}'
            | '\u{2060}'..='\u{206F}' | '\u{3164}' | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}'
            | '\u{FFA0}' | '\u{E0000}'..='\u{E0FFF}'
    )
}

/// Whether what is in `range` of a folded text is not a part of a longer word.
pub(super) fn is_whole(folded: &str, range: Range<usize>) -> bool {
    let (before, rest) = folded.split_at(range.start);
    let (found, behind) = rest.split_at(range.len());
    let goes_on = |inside: Option<char>, outside: Option<char>| {
        inside.is_some_and(shows_words) && outside.is_some_and(shows_words)
    };
    !goes_on(found.chars().next(), before.chars().next_back())
        && !goes_on(found.chars().next_back(), behind.chars().next())
}

/// A character of words whose ends can be told from what is beside them.
pub(super) fn shows_words(c: char) -> bool {
    (c.is_alphanumeric() || c == '_') && !is_unspaced(c)
}

/// Of a script that writes without spaces between words, or appends particles to them.
pub(super) fn is_unspaced(c: char) -> bool {
    matches!(
        c,
        '\u{E00}'..='\u{EFF}'             // Thai, Lao
            | '\u{1000}'..='\u{109F}'     // Burmese
            | '\u{1100}'..='\u{11FF}'     // Hangul letters
            | '\u{1780}'..='\u{17FF}'     // Khmer
            | '\u{2E80}'..='\u{31FF}'     // radicals, Hiragana, Katakana, Bopomofo, Hangul
            | '\u{3400}'..='\u{9FFF}'     // Chinese characters
            | '\u{A960}'..='\u{A97F}'
            | '\u{AC00}'..='\u{D7FF}'     // Hangul syllables
            | '\u{F900}'..='\u{FAFF}'
            | '\u{FF66}'..='\u{FFDC}'     // half-width Katakana and Hangul
            | '\u{20000}'..='\u{3FFFF}'   // further Chinese characters
    )
}
