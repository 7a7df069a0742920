//! Keyspace notifications: what happened to a key, for those who subscribe to it. Which kinds of
//! news are told is a setting, `notify-keyspace-events`; by default none.

/// A kind of news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Class(u32);

impl Class {
    pub(crate) const GENERIC: Class = Class(1);
    pub(crate) const STRING: Class = Class(1 << 1);
    pub(crate) const LIST: Class = Class(1 << 2);
    pub(crate) const SET: Class = Class(1 << 3);
    pub(crate) const HASH: Class = Class(1 << 4);
    pub(crate) const ZSET: Class = Class(1 << 5);
    pub(crate) const EXPIRED: Class = Class(1 << 6);
    pub(crate) const EVICTED: Class = Class(1 << 7);
    pub(crate) const STREAM: Class = Class(1 << 8);
    pub(crate) const MISS: Class = Class(1 << 9);
    pub(crate) const NEW: Class = Class(1 << 10);
    const KEYSPACE: u32 = 1 << 16;
    const KEYEVENT: u32 = 1 << 17;

    const LETTERS: [(u8, u32); 13] = [
        (b'g', Class::GENERIC.0),
        (b'$', Class::STRING.0),
        (b'l', Class::LIST.0),
        (b's', Class::SET.0),
        (b'h', Class::HASH.0),
        (b'z', Class::ZSET.0),
        (b'x', Class::EXPIRED.0),
        (b'e', Class::EVICTED.0),
        (b't', Class::STREAM.0),
        (b'm', Class::MISS.0),
        (b'n', Class::NEW.0),
        (b'K', Class::KEYSPACE),
        (b'E', Class::KEYEVENT),
    ];
    /// What `A` stands for.
    const ALL: u32 = (1 << 9) - 1;
}

/// Something that happened to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Notice {
    pub(crate) event: &'static str,
    pub(crate) db: usize,
    pub(crate) key: Vec<u8>,
}

/// What happened and was not told yet, of what shall be told.
#[derive(Default)]
pub(crate) struct Notices {
    classes: u32,
    pub(crate) waiting: Vec<Notice>,
}

impl Notices {
    #[inline]
    pub(crate) fn note(&mut self, class: Class, event: &'static str, db: usize, key: &[u8]) {
        if self.classes & class.0 != 0 {
            self.waiting.push(Notice { event, db, key: key.to_vec() });
        }
    }

    /// Whether `__keyspace@…__` channels are told.
    pub(crate) fn by_key(&self) -> bool {
        self.classes & Class::KEYSPACE != 0
    }

    /// Whether `__keyevent@…__` channels are.
    pub(crate) fn by_event(&self) -> bool {
        self.classes & Class::KEYEVENT != 0
    }

    /// Takes the setting's letters; returns whether they are right.
    pub(crate) fn set(&mut self, letters: &[u8]) -> bool {
        let mut classes = 0;
        for letter in letters {
            match Class::LETTERS.iter().find(|(known, _)| known == letter) {
                Some((_, bits)) => classes |= bits,
                None if *letter == b'A' => classes |= Class::ALL,
                None => return false,
            }
        }
        let somewhere = classes & (Class::KEYSPACE | Class::KEYEVENT) != 0;
        self.classes = if somewhere { classes } else { 0 };
        true
    }

    /// The setting as letters, as Redis gives it back.
    pub(crate) fn letters(&self) -> String {
        let mut letters = String::new();
        let all = self.classes & Class::ALL == Class::ALL;
        if all {
            letters.push('A');
        }
        for (letter, bits) in Class::LETTERS {
            let is_within = bits & Class::ALL != 0;
            if self.classes & bits != 0 && !(all && is_within) {
                letters.push(letter as char);
            }
        }
        letters
    }
}
