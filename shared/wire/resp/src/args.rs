//! The words of a command: where they lie in a buffer that somebody else holds ([`Args`]), or
//! with memory of their own ([`OwnedArgs`]).
//!
//! ```text
//!   buf    *2\r\n$3\r\nGET\r\n$5\r\nhello\r\n
//!                    └─┘          └───┘
//!   words           (8,3)        (17,5)
//! ```

use std::fmt;
use std::ops::Index;

/// Where a word lies in its buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: u32,
    pub(crate) len: u32,
}

impl Span {
    #[inline]
    fn of(self, buf: &[u8]) -> &[u8] {
        let start = self.start as usize;
        &buf[start..start + self.len as usize]
    }
}

/// The words of a command, its name first, where they were received.
#[derive(Clone, Copy)]
pub struct Args<'a> {
    buf: &'a [u8],
    words: &'a [Span],
}

impl<'a> Args<'a> {
    pub(crate) fn new(buf: &'a [u8], words: &'a [Span]) -> Args<'a> {
        Args { buf, words }
    }

    /// How many words there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.words.len()
    }

    /// Whether there is no word: never as they come from the parser.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// The word at `index`.
    #[inline]
    pub fn get(&self, index: usize) -> Option<&'a [u8]> {
        self.words.get(index).map(|word| word.of(self.buf))
    }

    /// The words in order.
    #[inline]
    pub fn iter(
        self,
    ) -> impl ExactSizeIterator<Item = &'a [u8]> + DoubleEndedIterator + Clone + 'a {
        self.words.iter().map(move |word| word.of(self.buf))
    }

    /// The words without the first `n`; none if there are no more.
    #[inline]
    pub fn skip(self, n: usize) -> Args<'a> {
        Args { buf: self.buf, words: self.words.get(n..).unwrap_or_default() }
    }

    /// A copy with memory of its own, of the words and nothing between them.
    pub fn to_owned(&self) -> OwnedArgs {
        let mut owned = OwnedArgs {
            bytes: Vec::with_capacity(self.bytes()),
            words: Vec::with_capacity(self.len()),
        };
        self.iter().for_each(|word| owned.push(word));
        owned
    }

    /// The lengths of all words together.
    pub fn bytes(&self) -> usize {
        self.words.iter().map(|word| word.len as usize).sum()
    }
}

impl Index<usize> for Args<'_> {
    type Output = [u8];

    /// # Panics
    /// There are no more than `index` words.
    #[inline]
    fn index(&self, index: usize) -> &[u8] {
        self.words[index].of(self.buf)
    }
}

impl fmt::Debug for Args<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list = f.debug_list();
        self.iter().for_each(|word| {
            list.entry(&format_args!("\"{}\"", word.escape_ascii()));
        });
        list.finish()
    }
}

impl PartialEq for Args<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Args<'_> {}

/// The words of a command with memory of their own, for a command that waits: queued by `MULTI`,
/// or kept while its client is blocked.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct OwnedArgs {
    bytes: Vec<u8>,
    words: Vec<Span>,
}

impl OwnedArgs {
    /// A command of these words.
    ///
    /// # Panics
    /// The words take 4 GiB or more together.
    pub fn from_words<'w>(words: impl IntoIterator<Item = &'w [u8]>) -> OwnedArgs {
        let mut owned = OwnedArgs::default();
        words.into_iter().for_each(|word| owned.push(word));
        owned
    }

    fn push(&mut self, word: &[u8]) {
        let start = self.bytes.len();
        let end = u32::try_from(start + word.len()).expect("the words of a command take < 4 GiB");
        self.words.push(Span { start: start as u32, len: end - start as u32 });
        self.bytes.extend_from_slice(word);
    }

    /// The words.
    #[inline]
    pub fn args(&self) -> Args<'_> {
        Args { buf: &self.bytes, words: &self.words }
    }

    /// The memory that it takes, apart from its own fields.
    pub fn memory_bytes(&self) -> usize {
        self.bytes.capacity() + self.words.capacity() * size_of::<Span>()
    }
}

impl fmt::Debug for OwnedArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.args().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_taken_by_number_in_order_and_from_one_on() {
        let owned = OwnedArgs::from_words([&b"SET"[..], b"", b"a\r\n"]);
        let args = owned.args();
        assert_eq!((args.len(), args.bytes(), args.is_empty()), (3, 6, false));
        assert_eq!((&args[0], args.get(2), args.get(3)), (&b"SET"[..], Some(&b"a\r\n"[..]), None));
        assert_eq!(args.iter().rev().map(<[u8]>::len).collect::<Vec<_>>(), [3, 0, 3]);
        assert_eq!(args.skip(1).iter().next(), Some(&b""[..]));
        assert!(args.skip(3).is_empty() && args.skip(4).is_empty());
        assert_eq!(format!("{args:?}"), r#"["SET", "", "a\r\n"]"#);
    }

    #[test]
    fn a_copy_has_the_words_and_nothing_else() {
        let owned = OwnedArgs::from_words([&b"MULTI"[..], b"x"]);
        let copy = owned.args().skip(1).to_owned();
        assert_eq!(copy, OwnedArgs::from_words([&b"x"[..]]));
        assert_eq!(copy.memory_bytes(), 1 + size_of::<Span>());
    }
}
