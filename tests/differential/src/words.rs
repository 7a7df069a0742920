//! Keys, values and numbers by chance: few keys, so that commands meet; small values, so that they
//! collide; and hostile ones.

/// The words of a command.
pub type Words = Vec<Vec<u8>>;

/// Makes words. All of it follows from a seed.
#[derive(Debug)]
pub struct Maker {
    /// Chance.
    pub random: fastrand::Rng,
    /// The keys of this game.
    pub keys: Vec<Vec<u8>>,
    last_key: Vec<u8>,
    last_count: usize,
    last_id: u64,
    /// So many relative times were told: no two of them are the same.
    times: i64,
}

const FLOATS: &[&str] = &[
    "0",
    "1",
    "-1",
    "0.5",
    "1.5",
    "-2.25",
    "3.0",
    "10",
    "100",
    "1e3",
    "-1e-3",
    "inf",
    "-inf",
    "+inf",
    "0.1",
    "0.2",
    "3.14159",
    "1e17",
    "123456789.125",
    "-0",
    "2",
    "4",
    "5",
];
const HOSTILE_FLOATS: &[&str] = &[
    "nan",
    "abc",
    "",
    " 1",
    "1 ",
    "1e400",
    "-1e400",
    "0x10",
    "1e308",
    "1e-320",
    "infinity",
    "1,5",
    "(1",
    "1.7976931348623157e308",
    "--1",
    "1e",
    ".5",
    "5.",
];
const HOSTILE_INTS: &[&str] = &[
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "-9223372036854775809",
    "18446744073709551616",
    "-2147483649",
    "4294967296",
    "abc",
    "",
    "1.0",
    "1e3",
    " 1",
    "1 ",
    "+1",
    "01",
    "-0",
    "0x10",
    "99999999999999999999999",
];
const WORDS: &[&str] =
    &["", "a", "b", "abc", "ohmytext", "mynewtext", "hello world", "A", "0", "1"];

impl Maker {
    /// A maker of a game.
    pub fn new(seed: u64) -> Maker {
        let mut random = fastrand::Rng::with_seed(seed);
        let pool: [&[u8]; 8] =
            [b"a", b"b", b"c", b"k:1", b"k:2", b"", b"\x00\xff\r\n k", &[b'L'; 100]];
        let count = random.usize(2..=5);
        let mut keys: Vec<Vec<u8>> = pool[..count].iter().map(|key| key.to_vec()).collect();
        if random.u8(0..4) == 0 {
            keys.push(pool[random.usize(5..8)].to_vec());
        }
        Maker { random, keys, last_key: b"a".to_vec(), last_count: 1, last_id: 0, times: 0 }
    }

    fn one_of(&mut self, words: &[&str]) -> Vec<u8> {
        words[self.random.usize(..words.len())].as_bytes().to_vec()
    }

    /// Once in so many times.
    fn rarely(&mut self, times: u32) -> bool {
        self.random.u32(0..times) == 0
    }

    fn key(&mut self) -> Vec<u8> {
        let key = match self.rarely(20) {
            true => b"nokey".to_vec(),
            false => self.keys[self.random.usize(..self.keys.len())].clone(),
        };
        self.last_key.clone_from(&key);
        key
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.random.u8(..)).collect()
    }

    /// A string value.
    fn value(&mut self) -> Vec<u8> {
        match self.random.u32(0..100) {
            0..40 => self.one_of(WORDS),
            40..60 => self.small().to_string().into_bytes(),
            60..66 => self.one_of(HOSTILE_INTS),
            66..74 => self.one_of(FLOATS),
            74..77 => self.one_of(HOSTILE_FLOATS),
            77..88 => {
                let count = self.random.usize(0..20);
                self.bytes(count)
            }
            88..96 => {
                let count =
                    [43, 44, 45, 64, 65, 127, 128, 200, 1023, 1025][self.random.usize(..10)];
                vec![b'x'; count]
            }
            96..98 => {
                let count = self.random.usize(1000..5000);
                self.bytes(count)
            }
            _ => {
                let count = [65_535, 65_536, 65_537, 100_000][self.random.usize(..4)];
                vec![self.random.lowercase() as u8; count]
            }
        }
    }

    fn small(&mut self) -> i64 {
        self.random.i64(-3..12)
    }

    fn int(&mut self) -> Vec<u8> {
        match self.random.u32(0..20) {
            0..16 => self.small().to_string().into_bytes(),
            16..18 => self.random.i64(-100_000..100_000).to_string().into_bytes(),
            _ => self.one_of(HOSTILE_INTS),
        }
    }

    fn float(&mut self) -> Vec<u8> {
        if self.rarely(25) { self.one_of(HOSTILE_FLOATS) } else { self.one_of(FLOATS) }
    }

    /// A place in a string that may have to grow for it, but not to no end.
    fn offset(&mut self) -> Vec<u8> {
        match self.random.u32(0..40) {
            0..25 => self.random.u32(0..20).to_string().into_bytes(),
            25..33 => self.random.u32(0..300).to_string().into_bytes(),
            33..35 => self.random.u32(65_500..65_570).to_string().into_bytes(),
            35 => self.random.u32(0..200_000).to_string().into_bytes(),
            36..38 => b"-1".to_vec(),
            _ => self.one_of(HOSTILE_INTS),
        }
    }

    /// A relative time that no other is near, in milliseconds.
    fn far(&mut self) -> i64 {
        self.times += self.random.i64(1..1000);
        let sign = if self.random.bool() { 1 } else { -1 };
        1_000_000_000 + sign * self.times * 50_000
    }

    fn relative(&mut self, scale: i64) -> Vec<u8> {
        match self.random.u32(0..20) {
            0 => self.one_of(&["0", "-1", "9223372036854775807", "-9223372036854775808", "x", ""]),
            _ => (self.far() / scale).to_string().into_bytes(),
        }
    }

    fn absolute(&mut self, scale: i64) -> Vec<u8> {
        let at = match self.random.u32(0..16) {
            0 => return self.one_of(&["0", "-1", "9223372036854775807", "y", ""]),
            far => 4_000_000_000_000 + i64::from(far) * 1_000_000,
        };
        (at / scale).to_string().into_bytes()
    }

    fn id(&mut self) -> Vec<u8> {
        match self.random.u32(0..24) {
            0 => self.one_of(&[
                "0-0",
                "-",
                "+",
                "$",
                "abc",
                "1-",
                "1-*",
                "0",
                "18446744073709551615-18446744073709551615",
            ]),
            1..12 => {
                self.last_id += self.random.u64(0..2);
                format!("{}-{}", self.last_id, self.random.u8(0..4)).into_bytes()
            }
            _ => format!("{}-{}", self.random.u64(0..=self.last_id + 1), self.random.u8(0..4))
                .into_bytes(),
        }
    }

    fn count(&mut self) -> Vec<u8> {
        match self.random.u32(0..20) {
            0 => self.int(),
            _ => self.random.u32(0..6).to_string().into_bytes(),
        }
    }

    /// Adds a word of a kind, or some.
    ///
    /// # Panics
    /// There is no such kind.
    pub fn put(&mut self, kind: &str, words: &mut Words) {
        let word = match kind {
            "key" => self.key(),
            "same" => self.last_key.clone(),
            "value" => self.value(),
            "int" => self.int(),
            "small" => self.small().to_string().into_bytes(),
            "count" => self.count(),
            "positive" => self.random.u32(1..6).to_string().into_bytes(),
            "float" => self.float(),
            // What is exact in the arithmetic of both.
            "plain" => self.one_of(&["0", "1", "-1", "0.5", "1.5", "-2.25", "3.0", "0.125", "100"]),
            "offset" => self.offset(),
            "bit" => self.one_of(&["0", "1", "0", "1", "0", "1", "0", "1", "2", "-1", "x", "01"]),
            "seconds" => self.relative(1000),
            "millis" => self.relative(1),
            "at" => self.absolute(1000),
            "at_ms" => self.absolute(1),
            "db" => {
                self.one_of(&["0", "0", "0", "0", "0", "0", "1", "1", "2", "15", "16", "-1", "x"])
            }
            "pattern" => self.one_of(&[
                "*", "?", "a*", "k:[0-9]", "[^a]", "\\*", "a", "k:?", "", "[", "**a**", "[a-", "x*",
            ]),
            "type" => self.one_of(&["string", "list", "set", "zset", "hash", "stream", "nope"]),
            "field" | "member" => match self.random.u32(0..12) {
                0 => self.value(),
                1 => self.small().to_string().into_bytes(),
                _ => self.one_of(&["f1", "f2", "f3", "a", "b", "c", "d", "1", "2", ""]),
            },
            "min" | "max" => match self.random.u32(0..8) {
                0 => self.one_of(&["-inf", "+inf", "(-inf", "(+inf", "nan", "(x", "("]),
                1..4 => [b"(".to_vec(), self.float()].concat(),
                _ => self.float(),
            },
            "lexmin" | "lexmax" => self.one_of(&[
                "-", "+", "[a", "(a", "[b", "(c", "[", "(", "[f2", "(f3", "a", "", "[zz", "-x",
            ]),
            "id" => self.id(),
            "group" => self.one_of(&["g1", "g2", "g1"]),
            "consumer" => self.one_of(&["c1", "c2", "c3"]),
            "channel" => self.one_of(&["ch1", "ch2", "news.a", "news.b", ""]),
            "timeout" => self.one_of(&["0", "0", "1000", "0.0", "1e3", "-1", "x", "inf", "1e30"]),
            "lon" => {
                self.one_of(&["13.361389", "15.087269", "0", "-122.27652", "181", "-180", "x"])
            }
            "lat" => self.one_of(&["38.115556", "37.502669", "0", "37.805186", "86", "-85", "x"]),
            "radius" => self.one_of(&["100", "200", "5000", "0", "20000", "-1", "x"]),
            "unit" => self.one_of(&["m", "km", "ft", "mi", "KM", "x"]),
            "bits" => self.one_of(&[
                "u1", "u8", "i8", "u4", "i5", "u16", "i64", "u63", "i1", "u64", "i65", "u0", "x8",
                "u",
            ]),
            "bitat" => self.one_of(&[
                "0",
                "1",
                "7",
                "8",
                "#0",
                "#1",
                "#2",
                "100",
                "#100",
                "-1",
                "#-1",
                "x",
                "#",
                "4294967296",
                "524283",
                "524288",
            ]),
            "keys" => {
                let count = self.random.usize(1..=3);
                self.last_count = count;
                let said =
                    if self.rarely(20) { self.int() } else { count.to_string().into_bytes() };
                words.push(said);
                for _ in 0..count {
                    let key = self.key();
                    words.push(key);
                }
                return;
            }
            "weights" => {
                for _ in 0..self.last_count {
                    let weight = self.float();
                    words.push(weight);
                }
                return;
            }
            "elements" => {
                for _ in 0..self.random.usize(1..=6) {
                    let element = self.random.u32(0..100_000).to_string().into_bytes();
                    words.push(element);
                }
                return;
            }
            "many" => {
                // Enough to leave the small encodings.
                let (from, count) = (self.random.u32(0..1000), self.random.u32(100..700));
                words.extend((from..from + count).map(|n| n.to_string().into_bytes()));
                return;
            }
            "pairs" => {
                let (from, count) = (self.random.u32(0..1000), self.random.u32(100..300));
                let pair =
                    |n: u32| [n.to_string().into_bytes(), (n * 7 % 100).to_string().into_bytes()];
                words.extend((from..from + count).flat_map(pair));
                return;
            }
            "pairs_reversed" => {
                let (from, count) = (self.random.u32(0..1000), self.random.u32(100..300));
                let pair =
                    |n: u32| [(n * 7 % 100).to_string().into_bytes(), n.to_string().into_bytes()];
                words.extend((from..from + count).flat_map(pair));
                return;
            }
            other => panic!("<{other}> is no kind of word"),
        };
        words.push(word);
    }

    /// Makes a command a wrong one, perhaps: a word less or more, or a hostile one.
    pub fn spoil(&mut self, words: &mut Words) {
        let at = self.random.usize(1..=words.len());
        match self.random.u8(0..3) {
            0 if at < words.len() => drop(words.remove(at)),
            1 if at < words.len() => words[at] = self.hostile(),
            _ => {
                let word = self.hostile();
                words.insert(at, word);
            }
        }
    }

    /// A word that is wrong in most places, and in none makes a time that is soon.
    fn hostile(&mut self) -> Vec<u8> {
        match self.random.u8(0..8) {
            0..3 => self.one_of(HOSTILE_INTS),
            3..5 => self.one_of(&[
                "",
                "-1",
                "0",
                "abc",
                "nx",
                "xx",
                "get",
                "count",
                "limit",
                "withscores",
                "\r\n",
            ]),
            5 => self.one_of(HOSTILE_FLOATS),
            6 => self.bytes(3),
            _ => self.keys[0].clone(),
        }
    }

    /// The name in another case, perhaps.
    pub fn change_case(&mut self, words: &mut Words) {
        for word in words.iter_mut().filter(|word| word.len() < 12) {
            match self.random.u8(0..12) {
                0 if word.iter().all(u8::is_ascii_alphabetic) && word.len() > 2 => {
                    word.make_ascii_uppercase();
                }
                _ => {}
            }
        }
    }
}
