//! All of a registry as records, a few at a time: the owner writes them into its log between other
//! things, and then lets go of what the log had before the first of them.
//!
//! The registry may change meanwhile. A record says how something is when it is given, and what
//! changes is appended where it happens, so that a log in the order of both says how things are.

use crate::record::Record;
use crate::registry::Registry;

/// How far a snapshot is.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    stage: Stage,
}

#[derive(Clone, Debug, Default)]
enum Stage {
    #[default]
    Numbers,
    /// The next app.
    Apps(u16),
    /// The hour that is being told, and its last number that was.
    Retired(u32, Option<u32>),
    /// The next number.
    Devices(u32),
}

impl Registry {
    /// The next record of a snapshot; `None` at its end. Replayed into a registry without apps,
    /// with those of the operations between them, they make it be as this one.
    pub fn next_record(&self, snapshot: &mut Snapshot) -> Option<Vec<u8>> {
        loop {
            match snapshot.stage {
                Stage::Numbers => {
                    snapshot.stage = Stage::Apps(0);
                    return Some(Record::Numbers(self.numbers()).put());
                }
                Stage::Apps(number) => match self.app_name(number) {
                    Some(name) => {
                        snapshot.stage = Stage::Apps(number + 1);
                        return Some(Record::App { number, name }.put());
                    }
                    None => snapshot.stage = Stage::Retired(0, None),
                },
                Stage::Retired(hour, above) => match self.retired_after(hour, above) {
                    Some((hour, numbers)) => {
                        snapshot.stage = Stage::Retired(hour, numbers.last().copied());
                        return Some(Record::Retired { hour, numbers }.put());
                    }
                    None => snapshot.stage = Stage::Devices(0),
                },
                Stage::Devices(from) => {
                    let number = self.store.first_from(from)?;
                    let draft = self.draft(number)?;
                    snapshot.stage = Stage::Devices(number + 1);
                    return Some(Record::Device { number, draft }.put());
                }
            }
        }
    }

    /// All records of a snapshot.
    pub fn records(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        let mut snapshot = Snapshot::default();
        std::iter::from_fn(move || self.next_record(&mut snapshot))
    }
}
