//! The effective configuration as TOML, each value that is not a default with a word on where it
//! was set.

use super::tree::{Node, Origin, Step};

/// Prints `values`; `origins` is the tree they were read from.
pub(super) fn print(values: &toml::Table, origins: &Node) -> String {
    let mut printer = Printer { origins, path: Vec::new(), text: String::new() };
    printer.table(values);
    printer.text
}

struct Printer<'a> {
    origins: &'a Node,
    path: Vec<Step>,
    text: String,
}

impl Printer<'_> {
    /// Plain values first, since in TOML they would otherwise belong to the table before them.
    fn table(&mut self, table: &toml::Table) {
        for (key, value) in table.iter().filter(|(_, value)| !is_section(value)) {
            self.path.push(Step::Key(key.clone()));
            let line = format!("{} = {value}", bare(key));
            let comment = self.comment();
            self.text.push_str(&format!("{line}{comment}\n"));
            self.path.pop();
        }
        for (key, value) in table.iter().filter(|(_, value)| is_section(value)) {
            self.path.push(Step::Key(key.clone()));
            match value {
                toml::Value::Table(inner) => {
                    self.header("[", "]");
                    self.table(inner);
                }
                toml::Value::Array(items) => {
                    for (index, item) in items.iter().enumerate() {
                        self.path.push(Step::Index(index));
                        self.header("[[", "]]");
                        if let toml::Value::Table(inner) = item {
                            self.table(inner);
                        }
                        self.path.pop();
                    }
                }
                _ => unreachable!("a section is a table or an array of tables"),
            }
            self.path.pop();
        }
    }

    fn header(&mut self, open: &str, close: &str) {
        let names: Vec<String> = self
            .path
            .iter()
            .filter_map(|step| match step {
                Step::Key(key) => Some(bare(key)),
                Step::Index(_) => None,
            })
            .collect();
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.text.push_str(&format!("{open}{}{close}\n", names.join(".")));
    }

    fn comment(&self) -> String {
        match self.origins.get(&self.path).map(|node| &node.origin) {
            None | Some(Origin::Default) => String::new(),
            Some(origin) => format!("  # {origin}"),
        }
    }
}

fn is_section(value: &toml::Value) -> bool {
    match value {
        toml::Value::Table(_) => true,
        toml::Value::Array(items) => !items.is_empty() && items.iter().all(toml::Value::is_table),
        _ => false,
    }
}

/// A key as TOML wants it: in quotes unless it is plain.
fn bare(key: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !key.is_empty() && key.chars().all(plain) {
        key.to_owned()
    } else {
        toml::Value::String(key.to_owned()).to_string()
    }
}
