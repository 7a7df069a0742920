//! Whom a message is for, and which devices those are.

use roaring::RoaringBitmap;

use crate::evaluate::EvaluateError;
use crate::expression::Expression;
use crate::registry::Registry;

/// How many unknown names of a list are told.
pub const EXAMPLES_MAX: usize = 100;
/// How much of an unknown name is told, in characters.
const EXAMPLE_CHARS_MAX: usize = 128;

/// What a device is named by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name<'a> {
    /// Its id.
    Device(&'a str),
    /// An alias: all devices that have it.
    Alias(&'a str),
}

/// A name of a list, and the line that it is in, from one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed<'a> {
    /// Its line.
    pub line: u64,
    /// The name.
    pub name: Name<'a>,
}

/// Whom a message to an app is for.
#[non_exhaustive]
pub enum Target<'a> {
    /// One device.
    Device(&'a str),
    /// All devices that have an alias.
    Alias(&'a str),
    /// All that these names are of; see [`Gather`] for a list that comes in pieces.
    List(&'a mut dyn Iterator<Item = Listed<'a>>),
    /// All that an expression names.
    Expression(&'a Expression),
    /// All devices of the app, those that are used for tests too.
    Everyone,
}

/// A name that no device of the app has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown {
    /// Its line, from one.
    pub line: u64,
    /// The name, or its beginning.
    pub name: String,
}

/// The devices of a target.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resolved {
    /// Their numbers.
    pub devices: RoaringBitmap,
    /// How many names named nothing but devices that were named before.
    pub repeated: u64,
    /// How many names no device of the app has.
    pub unknown: u64,
    /// The first [`EXAMPLES_MAX`] of those.
    pub examples: Vec<Unknown>,
}

/// A list that is being resolved, name by name. It holds nothing of the registry, which may change
/// between two names.
#[derive(Debug)]
pub struct Gather {
    app: u16,
    found: Resolved,
    fresh: Vec<u32>,
}

impl Gather {
    /// An empty list of devices of an app.
    pub fn new(app: u16) -> Gather {
        Gather { app, found: Resolved::default(), fresh: Vec::new() }
    }

    /// Adds a name. The numbers of the devices that it names and no name before it did: what comes
    /// with the name, variables of a template, is for those, and the first line of a device counts.
    pub fn add(&mut self, registry: &Registry, listed: Listed<'_>) -> &[u32] {
        self.fresh.clear();
        match listed.name {
            Name::Device(id) => {
                let number = registry.number(id);
                let own = number.filter(|number| registry.app_of(*number) == Some(self.app));
                self.fresh.extend(own);
            }
            Name::Alias(alias) => {
                self.fresh.extend(registry.with_alias(self.app, alias));
                self.fresh.sort_unstable();
            }
        }
        if self.fresh.is_empty() {
            self.add_unknown(listed);
            return &self.fresh;
        }
        self.fresh.retain(|number| self.found.devices.insert(*number));
        self.found.repeated += u64::from(self.fresh.is_empty());
        &self.fresh
    }

    fn add_unknown(&mut self, listed: Listed<'_>) {
        self.found.unknown += 1;
        if self.found.examples.len() < EXAMPLES_MAX {
            let (Name::Device(name) | Name::Alias(name)) = listed.name;
            let name = name.chars().take(EXAMPLE_CHARS_MAX).collect();
            self.found.examples.push(Unknown { line: listed.line, name });
        }
    }

    /// What the names named, without devices that were removed meanwhile or went to another app.
    pub fn finish(mut self, registry: &Registry) -> Resolved {
        match registry.apps.get(usize::from(self.app)) {
            Some(app) => self.found.devices &= &app.devices,
            None => self.found.devices.clear(),
        }
        self.found
    }
}

impl Registry {
    /// The devices of an app that a target names.
    ///
    /// # Errors
    /// See [`EvaluateError`].
    pub fn resolve(&self, app: u16, target: Target<'_>) -> Result<Resolved, EvaluateError> {
        let everyone = self.apps.get(usize::from(app)).ok_or(EvaluateError::UnknownApp)?;
        let one = |name| {
            let mut gather = Gather::new(app);
            gather.add(self, Listed { line: 1, name });
            gather.finish(self)
        };
        Ok(match target {
            Target::Device(id) => one(Name::Device(id)),
            Target::Alias(alias) => one(Name::Alias(alias)),
            Target::List(names) => {
                let mut gather = Gather::new(app);
                for listed in names {
                    gather.add(self, listed);
                }
                gather.finish(self)
            }
            Target::Expression(expression) => {
                Resolved { devices: self.evaluate(app, expression)?, ..Resolved::default() }
            }
            Target::Everyone => {
                Resolved { devices: everyone.devices.clone(), ..Resolved::default() }
            }
        })
    }
}
