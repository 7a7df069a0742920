//! Devices and lists of them.

use std::io::Read;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use ureq::http::Method;

use super::{Call, Error, JSON, Pages, Query, Sender, json, ndjson, read};
use crate::types::{
    Device, DeviceEntry, DeviceUpdate, Import, ListFormat, ListUpload, Page, Token,
};

#[derive(Deserialize)]
struct Devices {
    devices: Vec<Device>,
    #[serde(default)]
    next: Option<String>,
}

#[derive(Serialize)]
struct Line {
    device: String,
    #[serde(flatten)]
    entry: DeviceEntry,
}

impl Sender {
    /// Says what a device is, whether it is known or not.
    ///
    /// # Errors
    ///
    /// Those of every request; a problem of status 409: the id belongs to another app.
    pub fn put_device(&self, device: &str, entry: &DeviceEntry) -> Result<Device, Error> {
        self.say(Method::PUT, self.path(&["devices", device]), entry)
    }

    /// Changes what a device is.
    ///
    /// # Errors
    ///
    /// Those of every request; a problem of status 404: there is no such device.
    pub fn update_device(&self, device: &str, update: &DeviceUpdate) -> Result<Device, Error> {
        self.say(Method::PATCH, self.path(&["devices", device]), update)
    }

    /// What a device is.
    ///
    /// # Errors
    ///
    /// As [`Sender::update_device`].
    pub fn device(&self, device: &str) -> Result<Device, Error> {
        self.get(self.path(&["devices", device]))
    }

    /// Removes a device.
    ///
    /// # Errors
    ///
    /// As [`Sender::update_device`]. It is not said twice: after [`Error::Transport`] it may be done.
    pub fn remove_device(&self, device: &str) -> Result<(), Error> {
        let call = Call::once(Method::DELETE, self.path(&["devices", device]));
        self.exchange(&call).map(drop)
    }

    /// A page of the devices that an expression is true of, or of all.
    ///
    /// # Errors
    ///
    /// Those of every request; a problem of status 422: the expression is none.
    pub fn devices_page(
        &self,
        expression: Option<&str>,
        limit: Option<u32>,
        after: Option<&str>,
    ) -> Result<Page<Device>, Error> {
        let mut query = Query::default();
        query.add_some("expression", expression);
        query.add_some("limit", limit);
        query.add_some("after", after);
        let Devices { devices, next } = self.get(self.path(&["devices"]) + &query.0)?;
        Ok(Page { items: devices, next, incomplete: false })
    }

    /// The devices that an expression is true of, or all, page after page.
    pub fn devices(&self, expression: Option<&str>) -> Pages<'_, Device> {
        let expression = expression.map(str::to_owned);
        let fetch = move |sender: &Sender, after: Option<&str>| {
            sender.devices_page(expression.as_deref(), None, after)
        };
        Pages::new(self, Box::new(fetch))
    }

    /// Says what many devices are, of any number.
    ///
    /// # Errors
    ///
    /// Those of every request. Lines that were refused are told in the answer. It is not said
    /// twice; to import the same again does no harm.
    pub fn import_devices(
        &self,
        devices: impl IntoIterator<Item = (String, DeviceEntry)>,
    ) -> Result<Import, Error> {
        let lines = devices.into_iter().map(|(device, entry)| Line { device, entry });
        self.import_device_lines(ndjson(lines))
    }

    /// Says what many devices are, with lines of JSON that are there already: each a device with
    /// its id as `device`.
    ///
    /// # Errors
    ///
    /// As [`Sender::import_devices`]; what reading fails with is [`Error::Transport`].
    pub fn import_device_lines(&self, lines: impl Read) -> Result<Import, Error> {
        let path = self.path(&["devices", "import"]);
        self.upload(&path, ListFormat::Ndjson.content_type(), lines)
    }

    /// A token for a device: the password of its connection, valid for `ttl`.
    ///
    /// # Errors
    ///
    /// As [`Sender::update_device`]. It is not said twice: an answer that was lost is a token that
    /// nobody has.
    pub fn token(&self, device: &str, ttl: Duration) -> Result<Token, Error> {
        let body = json(&serde_json::json!({ "ttl": crate::types::span(ttl) }));
        let call = Call {
            body: Some((JSON, &body)),
            ..Call::once(Method::POST, self.path(&["devices", device, "tokens"]))
        };
        self.exchange(&call).and_then(read)
    }

    /// Makes all tokens of a device invalid, and closes its connection.
    ///
    /// # Errors
    ///
    /// As [`Sender::remove_device`].
    pub fn revoke_tokens(&self, device: &str) -> Result<(), Error> {
        let call = Call::once(Method::DELETE, self.path(&["devices", device, "tokens"]));
        self.exchange(&call).map(drop)
    }

    /// Uploads a list of devices, of any length, which is read as it is sent.
    ///
    /// # Errors
    ///
    /// Those of every request. It is not said twice; what reading fails with is
    /// [`Error::Transport`].
    pub fn upload_list(&self, format: ListFormat, lines: impl Read) -> Result<ListUpload, Error> {
        self.upload(&self.path(&["lists"]), format.content_type(), lines)
    }
}
