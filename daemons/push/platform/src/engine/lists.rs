//! Lists of devices that senders upload, and the variables that come with them.
//!
//! A list is read as it comes: of each line the device's number stays in memory, and its variables
//! go to the log, in blocks, found again by a sorted index of twelve bytes a device.

use roaring::RoaringBitmap;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sextant_devices::{Gather, ListFormat, ListReader, Registry, Resolved};
use sextant_segment::{BlockingLog, Position, Record};
use uuid::Uuid;

use super::{Engine, Map};
use crate::records::{self, Take, Unreadable};
use crate::refusal::Refusal;

/// How long a list stays that no message needs, in milliseconds: a day.
const KEEP_MS: u64 = 86_400_000;
/// Variables of one block, in bytes: reading those of a device reads its block.
const BLOCK_BYTES: usize = 8 << 10;
/// Uploads at once.
const UPLOADS_MAX: usize = 16;

/// What is told of a list.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ListSummary {
    /// Its name.
    pub list: Uuid,
    /// How many devices it names.
    pub devices: u64,
    /// Names that named nobody new.
    pub repeated: u64,
    /// Names that no device has.
    pub unknown: u64,
    /// The first hundred of them.
    pub examples: Vec<Value>,
    /// When it goes, if no message needs it then, in milliseconds since 1970.
    #[serde(skip)]
    pub expires_ms: u64,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Head {
    app: u16,
    expires_ms: u64,
    unknown: u64,
}

/// Where the variables of a device are.
#[derive(Clone, Copy, Debug)]
struct Place {
    device: u32,
    block: u32,
    offset: u32,
}

#[derive(Debug, Default)]
struct List {
    head: Option<Head>,
    devices: RoaringBitmap,
    /// By device, once the list is whole.
    index: Vec<Place>,
    blocks: Vec<Position>,
    /// Messages that need it.
    holds: u32,
}

struct Upload {
    app: u16,
    reader: Option<ListReader>,
    gather: Gather,
    block: Vec<u8>,
    list: List,
}

/// All lists.
#[derive(Default)]
pub(super) struct Lists {
    lists: Map<u128, List>,
    uploads: Map<u128, Upload>,
}

impl Lists {
    pub(super) fn hold(&mut self, list: u128) {
        if let Some(list) = self.lists.get_mut(&list) {
            list.holds += 1;
        }
    }

    pub(super) fn release(&mut self, list: u128) {
        if let Some(list) = self.lists.get_mut(&list) {
            list.holds = list.holds.saturating_sub(1);
        }
    }

    pub(super) fn has_vars(&self, list: u128) -> bool {
        self.lists.get(&list).is_some_and(|list| !list.index.is_empty())
    }

    pub(super) fn resolve(
        &self,
        app: u16,
        list: u128,
        registry: &Registry,
    ) -> Result<Resolved, Refusal> {
        let found = self.lists.get(&list);
        let list = found.filter(|list| list.head.as_ref().is_some_and(|head| head.app == app));
        let list = list.ok_or_else(|| Refusal::invalid("target", "there is no such list"))?;
        let everyone = registry.resolve(app, sextant_devices::Target::Everyone)?;
        let unknown = list.head.as_ref().map_or(0, |head| head.unknown);
        let devices = &list.devices & everyone.devices;
        Ok(Resolved { devices, unknown, ..Resolved::default() })
    }

    /// The variables of a device, a JSON object.
    pub(super) fn vars(&self, list: u128, device: u32, log: &BlockingLog) -> Option<String> {
        let list = self.lists.get(&list)?;
        let at = list.index.binary_search_by_key(&device, |place| place.device).ok()?;
        let place = list.index[at];
        let block = log.log().load(*list.blocks.get(place.block as usize)?).ok()?;
        let mut from = Take(block.payload.get(place.offset as usize..)?);
        let (found, len) = (from.u32().ok()?, from.u32().ok()?);
        let json = from.bytes(len as usize).ok()?;
        (found == device).then(|| String::from_utf8_lossy(json).into_owned())
    }

    pub(super) fn replay(&mut self, record: &Record) -> Result<(), Box<dyn std::error::Error>> {
        let mut from = Take(&record.payload);
        let id = from.u128()?;
        match record.kind {
            records::GONE_LIST => {
                self.lists.remove(&id);
            }
            records::LISTED => {
                let part = records::bitmap_of(from.rest())?;
                self.lists.entry(id).or_default().devices |= part;
            }
            records::VARS => {
                let list = self.lists.entry(id).or_default();
                if list.head.is_none() {
                    list.add_block(record.position, &record.payload)?;
                }
            }
            _ => {
                let list = self.lists.entry(id).or_default();
                list.head = Some(serde_json::from_slice(from.rest())?);
                list.sort();
            }
        }
        Ok(())
    }
}

impl List {
    /// Takes note of what is in a block of variables.
    fn add_block(&mut self, position: Position, payload: &[u8]) -> Result<(), Unreadable> {
        const HEAD: usize = 16;
        let block = u32::try_from(self.blocks.len()).map_err(|_| Unreadable)?;
        let mut from = Take(payload.get(HEAD..).ok_or(Unreadable)?);
        while !from.0.is_empty() {
            let offset = u32::try_from(payload.len() - from.0.len()).map_err(|_| Unreadable)?;
            let (device, len) = (from.u32()?, from.u32()?);
            from.bytes(len as usize)?;
            self.index.push(Place { device, block, offset });
        }
        self.blocks.push(position);
        Ok(())
    }

    fn sort(&mut self) {
        self.index.sort_unstable_by_key(|place| place.device);
        self.index.shrink_to_fit();
    }
}

impl Engine {
    /// Begins a list of an app's devices.
    ///
    /// # Errors
    /// There are too many lists, or uploads.
    pub fn begin_list(&mut self, app: u16, format: ListFormat, now: u64) -> Result<Uuid, Refusal> {
        self.drop_lists(now);
        if self.lists.uploads.len() >= UPLOADS_MAX {
            return Err(Refusal::Full(format!("{UPLOADS_MAX} lists are being uploaded")));
        }
        if self.lists.lists.len() >= self.options.lists_max {
            let max = self.options.lists_max;
            return Err(Refusal::Full(format!("there are {max} lists, and no more are taken")));
        }
        let id = Uuid::now_v7();
        let upload = Upload {
            app,
            reader: Some(ListReader::new(format)),
            gather: Gather::new(app),
            block: Vec::new(),
            list: List::default(),
        };
        self.lists.uploads.insert(id.as_u128(), upload);
        Ok(id)
    }

    /// Takes the next piece of a list.
    ///
    /// # Errors
    /// A line is wrong, or the log has no room: the list is given up.
    pub fn feed_list(&mut self, id: Uuid, piece: &[u8], now: u64) -> Result<(), Refusal> {
        let outcome = self.take_lines(id, Some(piece), now);
        if outcome.is_err() {
            self.lists.uploads.remove(&id.as_u128());
        }
        outcome
    }

    /// Gives a list up.
    pub fn abandon_list(&mut self, id: Uuid) {
        self.lists.uploads.remove(&id.as_u128());
    }

    fn take_lines(&mut self, id: Uuid, piece: Option<&[u8]>, now: u64) -> Result<(), Refusal> {
        let Some(mut upload) = self.lists.uploads.remove(&id.as_u128()) else {
            return Err(Refusal::Unknown("such list"));
        };
        let Upload { reader, gather, block, .. } = &mut upload;
        let registry = &self.registry;
        let mut full = Vec::new();
        let mut each = |line: sextant_devices::Line<'_>| {
            let fresh = gather.add(registry, line.listed);
            let Some(vars) = line.vars.filter(|vars| vars.len() > 2) else { return };
            for device in fresh {
                block.extend_from_slice(&device.to_le_bytes());
                block.extend_from_slice(&(vars.len() as u32).to_le_bytes());
                block.extend_from_slice(vars.as_bytes());
                if block.len() >= BLOCK_BYTES {
                    full.push(std::mem::take(block));
                }
            }
        };
        match piece {
            Some(piece) => match reader {
                Some(reader) => reader.feed(piece, &mut each)?,
                None => return Err(Refusal::Unknown("such list")),
            },
            None => {
                if let Some(reader) = reader.take() {
                    reader.finish(&mut each)?;
                }
                full.extend(Some(std::mem::take(block)).filter(|block| !block.is_empty()));
            }
        }
        for block in full {
            let head = id.as_u128().to_le_bytes();
            let position = self.append(records::VARS, &[&head, &block], now)?;
            let payload = [&head[..], &block].concat();
            upload.list.add_block(position, &payload).expect("as it was just written");
        }
        self.lists.uploads.insert(id.as_u128(), upload);
        Ok(())
    }

    /// Ends a list: it can be a target, durable with the next commit.
    ///
    /// # Errors
    /// As [`Engine::feed_list`].
    pub fn end_list(&mut self, id: Uuid, now: u64) -> Result<ListSummary, Refusal> {
        self.take_lines(id, None, now)?;
        let Some(upload) = self.lists.uploads.remove(&id.as_u128()) else {
            return Err(Refusal::Unknown("such list"));
        };
        let Upload { app, gather, mut list, .. } = upload;
        let found = gather.finish(&self.registry);
        let expires_ms = now.saturating_add(KEEP_MS);
        let head = Head { app, expires_ms, unknown: found.unknown };
        let name = id.as_u128().to_le_bytes();
        for part in records::parts(&found.devices) {
            self.append(records::LISTED, &[&name, &part], now)?;
        }
        let json = serde_json::to_vec(&head).expect("plain data is JSON");
        self.append(records::LIST, &[&name, &json], now)?;
        let examples = found
            .examples
            .iter()
            .map(|unknown| serde_json::json!({"line": unknown.line, "name": unknown.name}));
        let summary = ListSummary {
            list: id,
            devices: found.devices.len(),
            repeated: found.repeated,
            unknown: found.unknown,
            examples: examples.collect(),
            expires_ms,
        };
        list.head = Some(head);
        list.devices = found.devices;
        list.sort();
        self.lists.lists.insert(id.as_u128(), list);
        Ok(summary)
    }

    /// Lets lists go whose time is over and that no message needs.
    pub(super) fn drop_lists(&mut self, now: u64) {
        let is_gone = |list: &List| {
            list.holds == 0 && list.head.as_ref().is_none_or(|head| head.expires_ms <= now)
        };
        let gone: Vec<u128> =
            self.lists.lists.iter().filter(|(_, list)| is_gone(list)).map(|(id, _)| *id).collect();
        for id in gone {
            self.lists.lists.remove(&id);
            self.must_append(records::GONE_LIST, &[&id.to_le_bytes()], now);
        }
    }

    /// Lists, for a log that is written anew.
    pub(super) fn list_ids(&self) -> Vec<u128> {
        self.lists.lists.keys().copied().collect()
    }

    /// Writes a list anew.
    pub(super) fn rewrite_list(&mut self, id: u128, now: u64) {
        let name = id.to_le_bytes();
        let Some(mut list) = self.lists.lists.remove(&id) else { return };
        for block in &mut list.blocks {
            match self.log.log().load(*block) {
                Ok(record) => match self.append(records::VARS, &[&record.payload], now) {
                    Ok(position) => *block = position,
                    Err(error) => self.fail(error.to_string()),
                },
                Err(error) => tracing::error!(%error, "variables of a list cannot be read"),
            }
        }
        for part in records::parts(&list.devices) {
            self.must_append(records::LISTED, &[&name, &part], now);
        }
        if let Some(head) = &list.head {
            let json = serde_json::to_vec(head).expect("plain data is JSON");
            self.must_append(records::LIST, &[&name, &json], now);
        }
        self.lists.lists.insert(id, list);
    }
}
