//! Random operations, and a map that they are done to.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use crate::{Device, Edit, Entry, Field, Number, Refused, Update, Value, What};

const HOUR: u64 = 3_600_000;

#[derive(Clone, Copy, Debug)]
pub(super) enum App {
    Shop,
    Blog,
}

impl App {
    pub(super) const ALL: [App; 2] = [App::Shop, App::Blog];

    pub(super) fn name(self) -> &'static str {
        match self {
            App::Shop => "shop",
            App::Blog => "blog",
        }
    }
}

#[derive(Clone, Debug)]
pub(super) enum Op {
    Register(Device),
    Update(String, Update),
    Remove(String),
    Revoke(String),
    Release,
}

pub(super) fn ids() -> impl Iterator<Item = String> {
    (0..30).map(|n| format!("d{n}"))
}

pub(super) fn device(id: &str) -> Device {
    let mut device = Device::new(id, "shop", "ios");
    device.tags.insert("a".into());
    device
}

pub(super) fn update(set: &[&str], remove: &[&str]) -> Update {
    let owned = |tags: &[&str]| tags.iter().map(|tag| (*tag).to_owned()).collect();
    Update { set_tags: owned(set), remove_tags: owned(remove), ..Update::default() }
}

fn id() -> impl Strategy<Value = String> {
    (0..30).prop_map(|n| format!("d{n}"))
}

fn one_of(texts: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop::sample::select(texts).prop_map(str::to_owned)
}

fn tag() -> impl Strategy<Value = String> {
    one_of(&["a", "b", "beta", "big spender", "c", "18"])
}

fn key() -> impl Strategy<Value = String> {
    one_of(&["age", "city", "k"])
}

fn platform() -> impl Strategy<Value = String> {
    one_of(&["ios", "android", "web"])
}

fn version() -> impl Strategy<Value = String> {
    one_of(&["1", "1.0", "1.2-beta", "1.10", "3.2.1"])
}

fn alias() -> impl Strategy<Value = String> {
    one_of(&["zoe", "bob", "eve"])
}

fn zone() -> impl Strategy<Value = String> {
    one_of(&["UTC", "Asia/Shanghai", "Europe/Paris"])
}

fn language() -> impl Strategy<Value = String> {
    one_of(&["zh", "zh-CN", "zh-Hant-TW", "en"])
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        one_of(&["sz", "sh", "18", "New York"]).prop_map(Value::Text),
        (16i32..20).prop_map(|n| Value::Number(n.into())),
        Just(Value::Number(Number::new(17.5).expect("it is finite"))),
    ]
}

pub(super) fn any_device() -> impl Strategy<Value = Device> {
    let option = prop::option::of::<BoxedStrategy<String>>;
    let texts = (
        option(version().boxed()),
        option(alias().boxed()),
        option(zone().boxed()),
        option(language().boxed()),
    );
    let words = (
        prop::collection::btree_set(tag(), 0..4),
        prop::collection::btree_map(key(), value(), 0..3),
    );
    let app = prop::sample::select(vec!["shop", "shop", "shop", "blog"]);
    (id(), app, platform(), texts, words, any::<bool>()).prop_map(
        |(id, app, platform, (app_version, alias, time_zone, language), words, test)| Device {
            id,
            app: app.to_owned(),
            platform,
            app_version,
            alias,
            tags: words.0,
            attributes: words.1,
            time_zone,
            language,
            test,
        },
    )
}

fn edit(texts: BoxedStrategy<String>) -> impl Strategy<Value = Edit> {
    prop_oneof![3 => Just(Edit::Keep), 1 => Just(Edit::Clear), 1 => texts.prop_map(Edit::Set)]
}

fn any_update() -> impl Strategy<Value = Update> {
    let some = |texts: BoxedStrategy<String>| prop::collection::vec(texts, 0..3);
    let edits = (
        edit(version().boxed()),
        edit(alias().boxed()),
        edit(zone().boxed()),
        edit(language().boxed()),
    );
    let words = (
        some(tag().boxed()),
        some(tag().boxed()),
        some(key().boxed()),
        prop::collection::vec((key(), value()), 0..3),
    );
    (prop::option::of(platform()), edits, words, any::<Option<bool>>()).prop_map(
        |(platform, (app_version, alias, time_zone, language), words, test)| Update {
            platform,
            app_version,
            alias,
            time_zone,
            language,
            test,
            remove_tags: words.0,
            set_tags: words.1,
            remove_attributes: words.2,
            set_attributes: words.3,
        },
    )
}

pub(super) fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => any_device().prop_map(Op::Register),
        4 => (id(), any_update()).prop_map(|(id, update)| Op::Update(id, update)),
        3 => id().prop_map(Op::Remove),
        1 => id().prop_map(Op::Revoke),
        1 => Just(Op::Release),
    ]
}

/// What a registry is, without any of its means.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) entries: BTreeMap<String, Entry>,
    /// Numbers of removed devices, and the hours of their removal.
    pub(super) retired: BTreeMap<u32, u64>,
    free: BTreeSet<u32>,
    next: u32,
    first_generation: u32,
}

type Changed = Result<Option<(u32, What)>, Refused>;

impl Model {
    pub(super) fn apply(&mut self, op: &Op, now: u64) -> Changed {
        match op {
            Op::Register(device) => self.register(device.clone(), now),
            Op::Update(id, update) => {
                let mut device = self.entry(id)?.device.clone();
                edit_all(&mut device, update);
                self.register(device, now)
            }
            Op::Remove(id) => {
                let entry = self.entries.remove(id).ok_or(Refused::UnknownDevice)?;
                self.retired.insert(entry.number, now / HOUR);
                self.first_generation = self.first_generation.max(entry.token_generation + 1);
                Ok(Some((entry.number, What::Removed)))
            }
            Op::Revoke(id) => {
                let entry = self.entries.get_mut(id).ok_or(Refused::UnknownDevice)?;
                entry.token_generation += 1;
                entry.updated_at = now;
                Ok(Some((entry.number, What::Updated(vec![Field::TokenGeneration]))))
            }
            Op::Release => {
                let free = self.retired.extract_if(.., |_, hour| *hour < now / HOUR);
                self.free.extend(free.map(|(number, _)| number));
                Ok(None)
            }
        }
    }

    fn entry(&self, id: &str) -> Result<&Entry, Refused> {
        self.entries.get(id).ok_or(Refused::UnknownDevice)
    }

    fn register(&mut self, device: Device, now: u64) -> Changed {
        if let Some(entry) = self.entries.get_mut(&device.id) {
            let fields = differing(&entry.device, &device);
            let what = match fields.is_empty() {
                true => What::Unchanged,
                false => {
                    entry.updated_at = now;
                    What::Updated(fields)
                }
            };
            entry.device = device;
            return Ok(Some((entry.number, what)));
        }
        let number = self.free.pop_first().unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        });
        let entry = Entry {
            number,
            device,
            registered_at: now,
            updated_at: now,
            token_generation: self.first_generation,
        };
        self.entries.insert(entry.device.id.clone(), entry);
        Ok(Some((number, What::Registered)))
    }
}

fn differing(old: &Device, new: &Device) -> Vec<Field> {
    let mut fields = Vec::new();
    let mut add = |differs, field| fields.extend(Some(field).filter(|_| differs));
    add(old.app != new.app, Field::App);
    add(old.platform != new.platform, Field::Platform);
    add(old.app_version != new.app_version, Field::AppVersion);
    add(old.alias != new.alias, Field::Alias);
    add(old.tags != new.tags, Field::Tags);
    add(old.attributes != new.attributes, Field::Attributes);
    add(old.time_zone != new.time_zone, Field::TimeZone);
    add(old.language != new.language, Field::Language);
    add(old.test != new.test, Field::Test);
    fields
}

fn edit_all(device: &mut Device, update: &Update) {
    let edit = |to: &mut Option<String>, edit: &Edit| match edit {
        Edit::Keep => {}
        Edit::Set(text) => *to = Some(text.clone()),
        Edit::Clear => *to = None,
    };
    edit(&mut device.app_version, &update.app_version);
    edit(&mut device.alias, &update.alias);
    edit(&mut device.time_zone, &update.time_zone);
    edit(&mut device.language, &update.language);
    device.platform = update.platform.clone().unwrap_or(device.platform.clone());
    device.test = update.test.unwrap_or(device.test);
    device.tags.retain(|tag| !update.remove_tags.contains(tag));
    device.tags.extend(update.set_tags.clone());
    device.attributes.retain(|key, _| !update.remove_attributes.contains(key));
    device.attributes.extend(update.set_attributes.clone());
}
