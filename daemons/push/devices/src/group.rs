//! Devices by what they have in common: by time zone for what is sent at a local time, by version
//! and others for funnels. All take time for each distinct value and what the bitmap has of it.

use roaring::RoaringBitmap;

use crate::registry::Registry;
use crate::terms::{APP_VERSION, LANGUAGE, PLATFORM, TAGS, TIME_ZONE};

/// What devices are grouped by; each has one at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum By {
    /// The platform, which every device has.
    Platform,
    /// The app's version, as it is written.
    AppVersion,
    /// The language.
    Language,
    /// The time zone.
    TimeZone,
}

/// Devices that have something in common.
#[derive(Clone, Debug, PartialEq)]
pub struct Group<'a> {
    /// What; `None` of devices that have none.
    pub value: Option<&'a str>,
    /// Their numbers.
    pub devices: RoaringBitmap,
}

impl Registry {
    /// The devices of an app that are among `devices`, by what they have: in the order of the
    /// values, and those without any last. No group is empty, and there is none if there is no
    /// such app.
    pub fn groups(&self, app: u16, by: By, devices: &RoaringBitmap) -> Vec<Group<'_>> {
        let Some(app) = self.apps.get(usize::from(app)) else { return Vec::new() };
        let key = match by {
            By::Platform => PLATFORM,
            By::AppVersion => APP_VERSION,
            By::Language => LANGUAGE,
            By::TimeZone => TIME_ZONE,
        };
        let mut rest = devices & &app.devices;
        let mut groups = Vec::new();
        for (value, posting) in app.terms.beginning(key, "") {
            let devices = posting.within(devices);
            if !devices.is_empty() {
                rest -= &devices;
                groups.push(Group { value: Some(value), devices });
            }
        }
        if !rest.is_empty() {
            groups.push(Group { value: None, devices: rest });
        }
        groups
    }

    /// How many of `devices` have each of the app's tags, without those that none of them has: the
    /// most frequent first, then in the order of the tags.
    pub fn tag_counts(&self, app: u16, devices: &RoaringBitmap) -> Vec<(&str, u64)> {
        let Some(app) = self.apps.get(usize::from(app)) else { return Vec::new() };
        let tags = app.terms.beginning(TAGS, "");
        let counts = tags.map(|(tag, posting)| (tag, posting.count_in(devices)));
        let mut counts = counts.filter(|(_, count)| *count > 0).collect::<Vec<_>>();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        counts
    }
}
