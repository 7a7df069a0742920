//! How far a message has come on each of its devices.
//!
//! ```text
//!   waiting ──► ready ──► in flight ──► done
//!      ▲          │           │          acknowledged, dropped, expired, recalled
//!      └──────────┴───────────┘
//! ```
//!
//! A device is counted once for each stage, however often it is said to have reached it: so what is
//! told twice, by a device or by a log that is read again, changes nothing. A few devices are a
//! short list of eight bytes each, and many are bitmaps.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use roaring::RoaringBitmap;
use serde::{Deserialize, Serialize};
use sextant_audit::Stage;

/// Devices that are a list; one more are bitmaps.
pub const FEW_MAX: usize = 16;

/// Of a fact that says [`Stage::Sent`]: the device does not acknowledge it, and nothing follows.
pub const AT_MOST_ONCE: u8 = 128;

const STAGES: usize = Stage::ALL.len();
const IN_FLIGHT: u16 = 1 << 13;
const READY: u16 = 1 << 14;
const DONE: u16 = 1 << 15;

/// Latencies are told to two digits, up to 30 days.
const LATENCY_MS_MAX: u64 = 30 * 86_400_000;
/// Stretches of a time line.
const SPANS_MAX: usize = 720;

/// What is counted by time.
pub const LINES: [Stage; 4] = [Stage::Sent, Stage::Acknowledged, Stage::Shown, Stage::Clicked];

#[derive(Clone, Copy, Debug)]
struct Copy {
    device: u32,
    /// A bit for each stage, and those above.
    bits: u16,
    reason: u8,
}

/// Bitmaps of many devices, and what is only told of many.
#[derive(Debug)]
pub struct Many {
    targets: RoaringBitmap,
    stages: [RoaringBitmap; STAGES],
    ready: RoaringBitmap,
    in_flight: RoaringBitmap,
    done: RoaringBitmap,
    losses: BTreeMap<u8, u64>,
    latency: Option<Histogram<u32>>,
    line: Line,
}

/// How many devices reached a stage, by time.
#[derive(Clone, Debug, Default)]
struct Line {
    /// How long a stretch is, in minutes.
    minutes: u64,
    /// By the minute that a stretch begins with.
    spans: BTreeMap<u64, [u32; LINES.len()]>,
}

impl Line {
    fn add(&mut self, line: usize, at: u64, count: u32) {
        let minutes = self.minutes.max(1);
        let minute = at / 60_000;
        self.spans.entry(minute - minute % minutes).or_default()[line] += count;
        while self.spans.len() > SPANS_MAX {
            self.minutes = self.minutes.max(1) * 2;
            let minutes = self.minutes;
            for (minute, counts) in std::mem::take(&mut self.spans) {
                let sum = self.spans.entry(minute - minute % minutes).or_default();
                sum.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
            }
        }
    }
}

/// A message's devices.
#[derive(Debug)]
pub enum Copies {
    /// At most [`FEW_MAX`], ascending.
    Few(Few),
    /// More.
    Many(Box<Many>),
}

/// A short list of devices.
#[derive(Debug)]
pub struct Few(Box<[Copy]>);

/// Numbers of devices, of a message or of some of its devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All it is for.
    pub targeted: u64,
    /// By stage.
    pub stages: [u64; STAGES],
    /// Those for whom it waits.
    pub pending: u64,
    /// Those to whom it is on its way.
    pub in_flight: u64,
}

impl Counts {
    /// Of a stage.
    pub fn of(&self, stage: Stage) -> u64 {
        self.stages[usize::from(stage.code())]
    }
}

/// How long after it was due a message was acknowledged, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latency {
    /// By how many devices.
    pub count: u64,
    /// Half of them needed no longer.
    pub p50: u64,
    /// Nine of ten.
    pub p90: u64,
    /// Ninety-nine of a hundred.
    pub p99: u64,
    /// The slowest.
    pub max: u64,
}

impl Copies {
    /// Everybody is targeted, and waits.
    pub fn new(targets: RoaringBitmap) -> Copies {
        if targets.len() <= FEW_MAX as u64 {
            let copies = targets.iter().map(|device| Copy { device, bits: 0, reason: 0 });
            return Copies::Few(Few(copies.collect()));
        }
        Copies::Many(Box::new(Many {
            targets,
            stages: Default::default(),
            ready: RoaringBitmap::new(),
            in_flight: RoaringBitmap::new(),
            done: RoaringBitmap::new(),
            losses: BTreeMap::new(),
            latency: None,
            line: Line::default(),
        }))
    }

    /// Whether there are many, for which bitmaps are kept.
    pub fn is_many(&self) -> bool {
        matches!(self, Copies::Many(_))
    }

    /// How many it is for.
    pub fn len(&self) -> u64 {
        match self {
            Copies::Few(few) => few.0.len() as u64,
            Copies::Many(many) => many.targets.len(),
        }
    }

    /// Whether it is for nobody.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All it is for.
    pub fn targets(&self) -> RoaringBitmap {
        match self {
            Copies::Few(few) => few.0.iter().map(|copy| copy.device).collect(),
            Copies::Many(many) => many.targets.clone(),
        }
    }

    /// Whether it is for a device.
    pub fn has(&self, device: u32) -> bool {
        match self {
            Copies::Few(few) => few.find(device).is_some(),
            Copies::Many(many) => many.targets.contains(device),
        }
    }

    /// Whether it waits for a device: it is not on its way, and not done.
    pub fn is_pending(&self, device: u32) -> bool {
        match self {
            Copies::Few(few) => few.find(device).is_some_and(Copy::is_pending),
            Copies::Many(many) => {
                many.targets.contains(device)
                    && !many.done.contains(device)
                    && !many.in_flight.contains(device)
            }
        }
    }

    /// Whether nothing more comes of it for a device, or it is not for it.
    pub fn is_done(&self, device: u32) -> bool {
        match self {
            Copies::Few(few) => few.find(device).is_none_or(|copy| copy.bits & DONE != 0),
            Copies::Many(many) => !many.targets.contains(device) || many.done.contains(device),
        }
    }

    /// Those for whom it waits.
    pub fn pending(&self) -> RoaringBitmap {
        match self {
            Copies::Few(few) => few.all(Copy::is_pending),
            Copies::Many(many) => &(&many.targets - &many.done) - &many.in_flight,
        }
    }

    /// Those to whom it is on its way.
    pub fn in_flight(&self) -> RoaringBitmap {
        match self {
            Copies::Few(few) => few.all(|copy| copy.bits & IN_FLIGHT != 0),
            Copies::Many(many) => many.in_flight.clone(),
        }
    }

    /// Those that reached a stage.
    pub fn reached(&self, stage: Stage) -> RoaringBitmap {
        match self {
            Copies::Few(few) => few.all(|copy| copy.bits & 1 << stage.code() != 0),
            Copies::Many(many) => many.stages[usize::from(stage.code())].clone(),
        }
    }

    /// Whether a device reached a stage.
    pub fn has_reached(&self, device: u32, stage: Stage) -> bool {
        match self {
            Copies::Few(few) => {
                few.find(device).is_some_and(|copy| copy.bits & 1 << stage.code() != 0)
            }
            Copies::Many(many) => many.stages[usize::from(stage.code())].contains(device),
        }
    }

    /// Whether nobody waits and nothing is on its way.
    pub fn is_settled(&self) -> bool {
        match self {
            Copies::Few(few) => few.0.iter().all(|copy| copy.bits & DONE != 0),
            Copies::Many(many) => many.done.len() == many.targets.len(),
        }
    }

    /// Makes a device ready that it waits for; whether it was not before.
    pub fn make_ready(&mut self, device: u32) -> bool {
        match self {
            Copies::Few(few) => few.find_mut(device).is_some_and(|copy| {
                let is_new = copy.is_pending() && copy.bits & READY == 0;
                copy.bits |= if is_new { READY } else { 0 };
                is_new
            }),
            Copies::Many(many) => {
                many.targets.contains(device)
                    && !many.done.contains(device)
                    && !many.in_flight.contains(device)
                    && many.ready.insert(device)
            }
        }
    }

    /// Makes all of these ready that it waits for; how many were not before.
    pub fn make_all_ready(&mut self, devices: &RoaringBitmap) -> u64 {
        match self {
            Copies::Few(_) => {
                let devices = self.targets() & devices;
                devices.iter().filter(|device| self.make_ready(*device)).count() as u64
            }
            Copies::Many(many) => {
                let before = many.ready.len();
                many.ready |= &(&(&(&many.targets & devices) - &many.done) - &many.in_flight);
                many.ready.len() - before
            }
        }
    }

    /// Takes at most `count` of those that are ready out, the lowest first.
    pub fn take_ready(&mut self, count: u32, out: &mut Vec<u32>) {
        out.clear();
        match self {
            Copies::Few(few) => {
                let ready = few.0.iter_mut().filter(|copy| copy.bits & READY != 0);
                out.extend(ready.take(count as usize).map(|copy| {
                    copy.bits &= !READY;
                    copy.device
                }));
            }
            Copies::Many(many) => {
                out.extend(many.ready.iter().take(count as usize));
                if let Some(last) = out.last() {
                    many.ready.remove_range(..=*last);
                }
            }
        }
    }

    /// How many are ready.
    pub fn ready(&self) -> u64 {
        match self {
            Copies::Few(few) => few.0.iter().filter(|copy| copy.bits & READY != 0).count() as u64,
            Copies::Many(many) => many.ready.len(),
        }
    }

    /// Nobody is ready any more.
    pub fn clear_ready(&mut self) {
        match self {
            Copies::Few(few) => few.0.iter_mut().for_each(|copy| copy.bits &= !READY),
            Copies::Many(many) => many.ready.clear(),
        }
    }

    /// It is on its way to these, which ascend.
    pub fn depart(&mut self, devices: &[u32]) {
        match self {
            Copies::Few(few) => {
                for device in devices {
                    if let Some(copy) = few.find_mut(*device) {
                        copy.bits |= IN_FLIGHT;
                    }
                }
            }
            Copies::Many(many) => many.in_flight |= sorted(devices),
        }
    }

    /// It is not on its way to these any more, which ascend; it waits for those that it was not
    /// done for.
    pub fn return_to_queue(&mut self, devices: &[u32]) {
        match self {
            Copies::Few(few) => {
                for device in devices {
                    if let Some(copy) = few.find_mut(*device) {
                        copy.bits &= !IN_FLIGHT;
                    }
                }
            }
            Copies::Many(many) => many.in_flight -= sorted(devices),
        }
    }

    /// Devices, which ascend, reached a stage; calls `each` for those that had not before. What is
    /// said of devices that it is not for is passed over, and that one is lost for whom it was done.
    /// One that was given up may still acknowledge it: it had it after all.
    pub fn reach(&mut self, stage: Stage, reason: u8, devices: &[u32], mut each: impl FnMut(u32)) {
        let (is_loss, ends) = (is_loss(stage), ends(stage, reason));
        match self {
            Copies::Few(few) => {
                for device in devices {
                    let Some(copy) = few.find_mut(*device) else { continue };
                    if is_loss && copy.bits & DONE != 0 {
                        continue;
                    }
                    let bit = 1 << stage.code();
                    if copy.bits & bit == 0 {
                        copy.bits |= bit;
                        each(*device);
                    }
                    if is_loss {
                        copy.reason = reason;
                    }
                    if ends {
                        copy.bits = copy.bits & !(IN_FLIGHT | READY) | DONE;
                    }
                }
            }
            Copies::Many(many) => {
                let mut found = sorted(devices) & &many.targets;
                if is_loss {
                    found -= &many.done;
                }
                let reached = &mut many.stages[usize::from(stage.code())];
                let new = &found - &*reached;
                *reached |= &new;
                new.iter().for_each(each);
                if is_loss && !new.is_empty() {
                    *many.losses.entry(reason).or_default() += new.len();
                }
                if ends {
                    many.in_flight -= &found;
                    many.ready -= &found;
                    many.done |= found;
                }
            }
        }
    }

    /// Counts by time, and how long it took; of many only.
    pub fn count_at(&mut self, stage: Stage, at: u64, latency_ms: Option<u64>, count: u32) {
        let Copies::Many(many) = self else { return };
        if let Some(line) = LINES.iter().position(|line| *line == stage) {
            many.line.add(line, at, count);
        }
        if let Some(latency) = latency_ms {
            let latencies = many.latency.get_or_insert_with(|| {
                Histogram::new_with_bounds(1, LATENCY_MS_MAX, 2).expect("bounds that fit")
            });
            latencies.saturating_record_n(latency.max(1), count);
        }
    }

    /// How many devices are where.
    pub fn counts(&self) -> Counts {
        match self {
            Copies::Few(few) => {
                let mut counts = Counts { targeted: few.0.len() as u64, ..Counts::default() };
                for copy in &few.0 {
                    for (code, sum) in counts.stages.iter_mut().enumerate() {
                        *sum += u64::from(copy.bits >> code & 1);
                    }
                    counts.pending += u64::from(copy.is_pending());
                    counts.in_flight += u64::from(copy.bits & IN_FLIGHT != 0);
                }
                counts
            }
            Copies::Many(many) => {
                let in_flight = many.in_flight.len();
                Counts {
                    targeted: many.targets.len(),
                    stages: std::array::from_fn(|code| many.stages[code].len()),
                    pending: many.targets.len() - many.done.len() - in_flight,
                    in_flight,
                }
            }
        }
    }

    /// How many of these are where: not who waits.
    pub fn counts_among(&self, devices: &RoaringBitmap) -> Counts {
        let among = |set: &RoaringBitmap| set.intersection_len(devices);
        match self {
            Copies::Few(few) => {
                let chosen = few.0.iter().filter(|copy| devices.contains(copy.device)).copied();
                Copies::Few(Few(chosen.collect())).counts()
            }
            Copies::Many(many) => Counts {
                targeted: among(&many.targets),
                stages: std::array::from_fn(|code| among(&many.stages[code])),
                ..Counts::default()
            },
        }
    }

    /// How many devices were lost, by reason.
    pub fn losses(&self) -> BTreeMap<u8, u64> {
        match self {
            Copies::Few(few) => {
                let mut losses = BTreeMap::new();
                for copy in few.0.iter().filter(|copy| copy.reason != 0) {
                    *losses.entry(copy.reason).or_default() += 1;
                }
                losses
            }
            Copies::Many(many) => many.losses.clone(),
        }
    }

    /// How long it took until devices had it; of many only.
    pub fn latency(&self) -> Option<Latency> {
        let Copies::Many(many) = self else { return None };
        let latencies = many.latency.as_ref()?;
        Some(Latency {
            count: latencies.len(),
            p50: latencies.value_at_quantile(0.5),
            p90: latencies.value_at_quantile(0.9),
            p99: latencies.value_at_quantile(0.99),
            max: latencies.max(),
        })
    }

    /// How many reached the stages of [`LINES`], by the time that a stretch begins at in
    /// milliseconds since 1970; of many only.
    pub fn line(&self) -> Vec<(u64, [u32; LINES.len()])> {
        let Copies::Many(many) = self else { return Vec::new() };
        many.line.spans.iter().map(|(minute, counts)| (minute * 60_000, *counts)).collect()
    }
}

/// What is told of many besides who they are, as the log keeps it.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Aside {
    losses: BTreeMap<u8, u64>,
    /// Latencies, and how many had each.
    latencies: Vec<(u64, u32)>,
    minutes: u64,
    spans: Vec<(u64, [u32; LINES.len()])>,
}

/// Instead of a stage's number: those for whom it is done.
const DONE_CODE: u8 = STAGES as u8;

impl Copies {
    /// What the log keeps of many, by number: see [`Copies::restore`].
    pub(crate) fn bitmaps(&self) -> impl Iterator<Item = (u8, &RoaringBitmap)> {
        let many = match self {
            Copies::Few(_) => None,
            Copies::Many(many) => Some(many),
        };
        many.into_iter().flat_map(|many| {
            let stages = (0..DONE_CODE).zip(&many.stages);
            stages.chain([(DONE_CODE, &many.done)]).filter(|(_, bitmap)| !bitmap.is_empty())
        })
    }

    /// What the log keeps besides.
    pub(crate) fn aside(&self) -> Aside {
        let Copies::Many(many) = self else { return Aside::default() };
        let latencies = many.latency.iter().flat_map(|latency| latency.iter_recorded());
        Aside {
            losses: many.losses.clone(),
            latencies: latencies
                .map(|value| (value.value_iterated_to(), value.count_at_value()))
                .collect(),
            minutes: many.line.minutes,
            spans: many.line.spans.iter().map(|(minute, counts)| (*minute, *counts)).collect(),
        }
    }

    /// Of a few devices each, and how far it is: see [`Copies::restore_one`].
    pub(crate) fn each(&self) -> impl Iterator<Item = (u32, u16, u8)> {
        let few = match self {
            Copies::Few(few) => &*few.0,
            Copies::Many(_) => &[],
        };
        few.iter().map(|copy| (copy.device, copy.bits & !(IN_FLIGHT | READY), copy.reason))
    }

    /// Takes back what [`Copies::bitmaps`] told, or a part of it.
    pub(crate) fn restore(&mut self, code: u8, bitmap: &RoaringBitmap) {
        let Copies::Many(many) = self else { return };
        let own = bitmap & &many.targets;
        match many.stages.get_mut(usize::from(code)) {
            Some(stage) => *stage |= own,
            None => many.done |= own,
        }
    }

    /// Takes back what [`Copies::aside`] told.
    pub(crate) fn restore_told(&mut self, aside: Aside) {
        let Copies::Many(many) = self else { return };
        many.losses = aside.losses;
        many.line = Line { minutes: aside.minutes, spans: aside.spans.into_iter().collect() };
        many.latency = None;
        for (latency, count) in aside.latencies {
            self.count_at(Stage::Accepted, 0, Some(latency), count);
        }
    }

    /// Takes back what [`Copies::each`] told of a device.
    pub(crate) fn restore_one(&mut self, device: u32, bits: u16, reason: u8) {
        let Copies::Few(few) = self else { return };
        if let Some(copy) = few.find_mut(device) {
            copy.bits = bits & !(IN_FLIGHT | READY);
            copy.reason = reason;
        }
    }
}

/// Whether nothing follows for a device that reached a stage.
fn ends(stage: Stage, reason: u8) -> bool {
    match stage {
        Stage::Acknowledged => true,
        Stage::Sent => reason == AT_MOST_ONCE,
        _ => is_loss(stage),
    }
}

/// Whether the device does not get it.
fn is_loss(stage: Stage) -> bool {
    matches!(stage, Stage::Dropped | Stage::Expired | Stage::Recalled)
}

fn sorted(devices: &[u32]) -> RoaringBitmap {
    debug_assert!(devices.is_sorted(), "whoever says who does so in their order");
    let mut bitmap = RoaringBitmap::new();
    bitmap.extend(devices);
    bitmap
}

impl Copy {
    fn is_pending(&self) -> bool {
        self.bits & (IN_FLIGHT | DONE) == 0
    }
}

impl Few {
    fn find(&self, device: u32) -> Option<&Copy> {
        self.0.iter().find(|copy| copy.device == device)
    }

    fn find_mut(&mut self, device: u32) -> Option<&mut Copy> {
        self.0.iter_mut().find(|copy| copy.device == device)
    }

    fn all(&self, is: impl Fn(&Copy) -> bool) -> RoaringBitmap {
        self.0.iter().filter(|copy| is(copy)).map(|copy| copy.device).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message for few and one for many, to devices 0, 10, 20, …
    fn both() -> [Copies; 2] {
        [3, 50].map(|count| Copies::new((0..count).map(|number| number * 10).collect()))
    }

    #[test]
    fn a_device_is_counted_once_for_each_stage() {
        for mut copies in both() {
            let mut new = Vec::new();
            for _ in 0..3 {
                copies.reach(Stage::Sent, 0, &[0, 5, 10], |device| new.push(device));
                copies.reach(Stage::Acknowledged, 0, &[10], |device| new.push(device));
            }
            assert_eq!(new, [0, 10, 10]);
            let counts = copies.counts();
            assert_eq!((counts.of(Stage::Sent), counts.of(Stage::Acknowledged)), (2, 1));
            assert_eq!(counts.pending, copies.len() - 1);
        }
    }

    #[test]
    fn what_is_ready_is_taken_once_and_waits_again_when_it_returns() {
        for mut copies in both() {
            let online: RoaringBitmap = [0, 10, 11, 20].into_iter().collect();
            assert_eq!(copies.make_all_ready(&online), 3);
            assert!(!copies.make_ready(10));
            let mut taken = Vec::new();
            copies.take_ready(2, &mut taken);
            assert_eq!(taken, [0, 10]);
            copies.depart(&taken);
            assert!(!copies.make_ready(0) && !copies.is_pending(0) && copies.is_pending(20));
            assert_eq!((copies.ready(), copies.counts().in_flight), (1, 2));
            copies.return_to_queue(&[0]);
            assert!(copies.make_ready(0));
            assert_eq!(copies.counts().pending, copies.len() - 1);
        }
    }

    #[test]
    fn a_loss_has_a_reason_and_comes_to_nobody_who_is_done() {
        for mut copies in both() {
            copies.depart(&[0]);
            copies.reach(Stage::Acknowledged, 0, &[0], |_| {});
            let all: Vec<u32> = copies.targets().iter().collect();
            copies.reach(Stage::Expired, 1, &all, |device| assert_ne!(device, 0));
            copies.reach(Stage::Dropped, 21, &all, |_| panic!("all are done"));
            assert!(copies.is_settled());
            assert_eq!(copies.losses(), BTreeMap::from([(1, copies.len() - 1)]));
            // One of those had it after all.
            copies.reach(Stage::Acknowledged, 0, &[10], |_| {});
            assert_eq!(copies.counts().of(Stage::Acknowledged), 2);
        }
    }

    #[test]
    fn at_most_once_nothing_follows_what_was_sent() {
        for mut copies in both() {
            copies.depart(&[0]);
            copies.reach(Stage::Sent, AT_MOST_ONCE, &[0], |_| {});
            assert!(!copies.is_pending(0));
            assert_eq!((copies.counts().in_flight, copies.losses().len()), (0, 0));
        }
    }

    #[test]
    fn a_part_of_the_devices_is_counted_by_itself() {
        for mut copies in both() {
            copies.reach(Stage::Sent, 0, &[0, 10, 20], |_| {});
            let some: RoaringBitmap = [10, 15, 20].into_iter().collect();
            let counts = copies.counts_among(&some);
            assert_eq!((counts.targeted, counts.of(Stage::Sent)), (2, 2));
        }
    }

    #[test]
    fn a_time_line_has_a_bounded_length_and_loses_nothing() {
        let mut copies = Copies::new((0..100).collect());
        for minute in 0..10_000 {
            copies.count_at(Stage::Sent, minute * 60_000, None, 1);
        }
        let line = copies.line();
        assert!(line.len() <= SPANS_MAX && line.len() > SPANS_MAX / 3, "{}", line.len());
        assert_eq!(line.iter().map(|(_, counts)| counts[0]).sum::<u32>(), 10_000);
    }

    #[test]
    fn latencies_are_told_by_their_percentiles() {
        let mut copies = Copies::new((0..100).collect());
        assert_eq!(copies.latency(), None);
        for latency in 1..=100 {
            copies.count_at(Stage::Acknowledged, 0, Some(latency), 1);
        }
        let latency = copies.latency().expect("some were counted");
        assert_eq!((latency.count, latency.p50, latency.p99, latency.max), (100, 50, 99, 100));
    }
}
