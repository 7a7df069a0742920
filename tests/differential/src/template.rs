//! Words by chance: a line says what a command may look like.
//!
//! ```text
//!   set <key> <value> { ( nx | xx ) ; get ; ( ex <seconds> | keepttl ) }
//!
//!   <kind>       a word of a kind, see `words`         [ … ]      or nothing
//!   ( a | b )    one of them                           { a ; b }  each or not, in any order
//!   …+           the item before it, one to four times
//!   a ;; b       two commands of one play
//! ```
//!
//! Every sign stands between spaces, but for `+`, which ends an item.

use crate::words::{Maker, Words};

/// What a play's commands may look like.
#[derive(Debug)]
pub struct Template {
    commands: Vec<Vec<Node>>,
}

#[derive(Debug)]
enum Node {
    Word(&'static str),
    Kind(&'static str),
    Maybe(Vec<Node>),
    One(Vec<Vec<Node>>),
    Any(Vec<Vec<Node>>),
    Many(Box<Node>),
}

/// The signs of a line that are left to be read.
struct Signs {
    left: std::vec::IntoIter<&'static str>,
}

impl Template {
    /// Reads a line.
    ///
    /// # Panics
    /// It is none.
    pub fn parse(line: &'static str) -> Template {
        let one = |line: &'static str| {
            let signs: Vec<&'static str> = line.split_whitespace().collect();
            let mut signs = Signs { left: signs.into_iter() };
            let (nodes, end) = signs.sequence();
            assert_eq!(end, None, "brackets match: {line}");
            nodes
        };
        Template { commands: line.split(";;").map(one).collect() }
    }

    /// Commands that look like this.
    pub fn make(&self, maker: &mut Maker) -> Vec<Words> {
        self.commands
            .iter()
            .map(|nodes| {
                let mut words = Words::new();
                put_all(nodes, maker, &mut words);
                words
            })
            .collect()
    }
}

impl Signs {
    /// Reads up to what ends a sequence, which is returned too.
    fn sequence(&mut self) -> (Vec<Node>, Option<&'static str>) {
        let mut nodes = Vec::new();
        while let Some(sign) = self.left.next() {
            if sign.len() == 1 && "|;)]}".contains(sign) || sign == ")+" {
                return (nodes, Some(sign));
            }
            let (sign, many) = match sign.strip_suffix('+') {
                Some(sign) if !sign.is_empty() => (sign, true),
                _ => (sign, false),
            };
            let (node, closed_many) = match sign {
                "(" => self.alternatives(Node::One),
                "{" => self.alternatives(Node::Any),
                "[" => {
                    let (nodes, _) = self.sequence();
                    (Node::Maybe(nodes), false)
                }
                sign if sign.starts_with('<') && sign.ends_with('>') => {
                    (Node::Kind(&sign[1..sign.len() - 1]), false)
                }
                sign => (Node::Word(sign), false),
            };
            nodes.push(if many || closed_many { Node::Many(Box::new(node)) } else { node });
        }
        (nodes, None)
    }

    fn alternatives(&mut self, node: fn(Vec<Vec<Node>>) -> Node) -> (Node, bool) {
        let mut sequences = Vec::new();
        loop {
            let (nodes, end) = self.sequence();
            sequences.push(nodes);
            match end {
                Some("|" | ";") => {}
                end => return (node(sequences), end == Some(")+")),
            }
        }
    }
}

fn put_all(nodes: &[Node], maker: &mut Maker, words: &mut Words) {
    nodes.iter().for_each(|node| put(node, maker, words));
}

fn put(node: &Node, maker: &mut Maker, words: &mut Words) {
    match node {
        Node::Word(word) => words.push(word.as_bytes().to_vec()),
        Node::Kind(kind) => maker.put(kind, words),
        Node::Maybe(nodes) => {
            if maker.random.bool() {
                put_all(nodes, maker, words);
            }
        }
        Node::One(sequences) => {
            let chosen = maker.random.usize(..sequences.len());
            put_all(&sequences[chosen], maker, words);
        }
        Node::Any(sequences) => {
            let mut order: Vec<usize> = (0..sequences.len()).collect();
            maker.random.shuffle(&mut order);
            for at in order {
                if maker.random.u8(0..3) == 0 {
                    put_all(&sequences[at], maker, words);
                }
            }
        }
        Node::Many(node) => {
            for _ in 0..maker.random.usize(1..=4) {
                put(node, maker, words);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_makes_what_it_says() {
        let template = Template::parse("a ( b | c d )+ { x ; y } [ z ] ;; e");
        let mut maker = Maker::new(3);
        for _ in 0..200 {
            let made = template.make(&mut maker);
            assert_eq!(
                (made.len(), &made[0][0], &made[1]),
                (2, &b"a".to_vec(), &vec![b"e".to_vec()])
            );
            assert!(made[0].iter().all(|word| word.len() == 1 && b"abcdxyz".contains(&word[0])));
        }
    }
}
