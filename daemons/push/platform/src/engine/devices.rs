//! Devices: what the registry does, and what follows from it here.

use std::sync::{Arc, PoisonError, RwLock};

use serde_json::json;
use sextant_devices::{Change, Device, Update, What};

use super::accept::TOPIC_TAG;
use super::{Engine, Happened, Map};
use crate::records;
use crate::refusal::Refusal;
use crate::told::Order;

/// Topics that a device subscribes to at once.
const TOPICS_MAX: usize = 100;
const TOPIC_BYTES_MAX: usize = 50;

/// What an import has come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Devices that are new.
    pub registered: u64,
    /// Devices that changed.
    pub updated: u64,
    /// Devices that were so already.
    pub unchanged: u64,
}

/// The least generation that the tokens of a device have to be of, where that is not zero. Asked on
/// any thread.
#[derive(Clone, Debug, Default)]
pub struct Generations(Arc<RwLock<Map<Box<str>, u32>>>);

impl Generations {
    /// Of a device, registered or not.
    pub fn least(&self, device: &str) -> u32 {
        let generations = self.0.read().unwrap_or_else(PoisonError::into_inner);
        generations.get(device).copied().unwrap_or(0)
    }

    pub(super) fn set(&self, device: &str, least: u32) {
        let mut generations = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let entry = generations.entry(device.into()).or_default();
        *entry = least.max(*entry);
    }

    pub(super) fn all(&self) -> Vec<(Box<str>, u32)> {
        let generations = self.0.read().unwrap_or_else(PoisonError::into_inner);
        generations.iter().map(|(device, least)| (device.clone(), *least)).collect()
    }
}

impl Engine {
    /// Makes an app, or finds it: its number, and whether it is new.
    ///
    /// # Errors
    /// The name is none, or there are too many.
    pub fn make_app(&mut self, name: &str, by: &str, now: u64) -> Result<(u16, bool), Refusal> {
        let (number, record) = self.registry.add_app(name)?;
        let Some(record) = record else { return Ok((number, false)) };
        self.append(records::REGISTRY, &[&record], now)?;
        self.event((0, number), Happened::AppMade, by, &json!({"app": name}), now);
        let rate = self.rules.app_rate(name);
        self.throttle.set_app(number, rate, now);
        Ok((number, true))
    }

    /// Registers a device, or makes it be this.
    ///
    /// # Errors
    /// The registry refuses it, or the id is another app's.
    pub fn register(&mut self, device: &Device, now: u64) -> Result<What, Refusal> {
        let app = self.app(&device.app)?;
        if let Some(number) = self.registry.number(&device.id)
            && self.registry.app_of(number) != Some(app)
        {
            return Err(Refusal::Conflict("the id is that of a device of another app".to_owned()));
        }
        let change = self.registry.register(device, now)?;
        self.changed(&device.id, change, now)
    }

    /// Changes a part of a device.
    ///
    /// # Errors
    /// There is no such device in the app, or what it would become is refused.
    pub fn update(
        &mut self,
        app: u16,
        id: &str,
        update: &Update,
        now: u64,
    ) -> Result<What, Refusal> {
        self.device_of(app, id)?;
        let change = self.registry.update(id, update, now)?;
        self.changed(id, change, now)
    }

    /// The number of an app's device.
    ///
    /// # Errors
    /// There is none.
    pub fn device_of(&self, app: u16, id: &str) -> Result<u32, Refusal> {
        let number = self.registry.number(id);
        let own = number.filter(|number| self.registry.app_of(*number) == Some(app));
        own.ok_or(Refusal::Unknown("such device"))
    }

    fn changed(&mut self, id: &str, change: Change, now: u64) -> Result<What, Refusal> {
        let Change { number, what, record } = change;
        if let Some(record) = record {
            // The registry has it already: where the log does not, nothing more is taken.
            if let Err(error) = self.append(records::REGISTRY, &[&record], now) {
                self.fail(format!("a device could not be written: {error}"));
                return Err(error);
            }
        }
        if what == What::Registered
            && let Some((core, session)) = self.strangers.remove(id)
        {
            self.arrived(core, id, session, number);
        }
        Ok(what)
    }

    /// Removes a device: what waits for it is lost, and its tokens are not valid any more.
    ///
    /// # Errors
    /// There is no such device in the app.
    pub fn remove(&mut self, app: u16, id: &str, by: &str, now: u64) -> Result<(), Refusal> {
        let number = self.device_of(app, id)?;
        let generation = self.registry.token_generation(id).unwrap_or(0);
        let change = self.registry.remove(id, now)?;
        self.changed(id, change, now)?;
        let detail = json!({"device": id, "number": number});
        self.event((0, app), Happened::DeviceRemoved, by, &detail, now);
        self.raise_generation(id, generation.saturating_add(1), now);
        self.kick(number, id);
        self.gone(number, now);
        Ok(())
    }

    /// Makes every token invalid that was issued for a device, and ends its connection.
    ///
    /// # Errors
    /// There is no such device in the app.
    pub fn revoke_tokens(&mut self, app: u16, id: &str, by: &str, now: u64) -> Result<(), Refusal> {
        let number = self.device_of(app, id)?;
        let change = self.registry.revoke_tokens(id, now)?;
        self.changed(id, change, now)?;
        self.event((0, app), Happened::TokensRevoked, by, &json!({"device": id}), now);
        let generation = self.registry.token_generation(id).unwrap_or(0);
        self.raise_generation(id, generation, now);
        self.kick(number, id);
        Ok(())
    }

    fn raise_generation(&mut self, id: &str, least: u32, now: u64) {
        self.generations.set(id, least);
        self.must_append(records::GENERATION, &[&least.to_le_bytes(), id.as_bytes()], now);
    }

    fn kick(&mut self, number: u32, id: &str) {
        let link = self.links.get(&number).map(|link| link.core);
        if let Some(core) = link {
            self.orders.push((core, Order::Kick { client_id: id.into() }));
        }
    }

    /// The least generations of tokens, for whoever checks them.
    pub fn generations(&self) -> super::Generations {
        self.generations.clone()
    }

    /// Subscribes a device to topics, and ends subscriptions; tells those that it has then.
    ///
    /// # Errors
    /// A name is none, there would be too many, or there is no such device.
    pub fn set_topics(
        &mut self,
        id: &str,
        subscribe: &[String],
        unsubscribe: &[String],
        now: u64,
    ) -> Result<Vec<String>, Refusal> {
        let number = self.registry.number(id).ok_or(Refusal::Unknown("such device"))?;
        let is_topic = |topic: &String| {
            (1..=TOPIC_BYTES_MAX).contains(&topic.len())
                && !topic.chars().any(|char| char.is_control() || char == '"' || char == '\\')
        };
        if !subscribe.iter().chain(unsubscribe).all(is_topic) {
            let why = format!("has 1 to {TOPIC_BYTES_MAX} bytes, none of them `\"` or `\\`");
            return Err(Refusal::invalid("subscribe", why));
        }
        if subscribe.len().max(unsubscribe.len()) > TOPICS_MAX {
            return Err(Refusal::invalid("subscribe", format!("at most {TOPICS_MAX} at once")));
        }
        let tags =
            |topics: &[String]| topics.iter().map(|name| format!("{TOPIC_TAG}{name}")).collect();
        let update = Update {
            set_tags: tags(subscribe),
            remove_tags: tags(unsubscribe),
            ..Update::default()
        };
        let change = self.registry.update(id, &update, now)?;
        self.changed(id, change, now)?;
        let entry = self.registry.entry(number).ok_or(Refusal::Unknown("such device"))?;
        let topics = entry.device.tags.iter().filter_map(|tag| tag.strip_prefix(TOPIC_TAG));
        Ok(topics.map(str::to_owned).collect())
    }
}
