//! Places: GEOADD, GEOSEARCH and their kin. A place is a member of a sorted set, and its score is
//! where it is.

use std::ops::Bound;

use sextant_keyspace::Scores;
use sextant_resp::Args;

use super::zset_ranges::store;
use super::zsets::{Rule, add, reply_added};
use crate::call::Call;
use crate::command::{Flags, Group, Keys, Spec, spec};
use crate::fault::Fault;
use crate::geohash::{LATITUDE_MAX, LONGITUDE_MAX, Point, Search, Shape};
use crate::output::Output;
use crate::words::{float, int, is, parse_float, quoted};

const READ: Flags = Flags::READONLY;
const GROW: Flags = Flags::WRITE.and(Flags::DENYOOM);
const MAY_STORE: Flags = GROW.and(Flags::MOVABLE_KEYS);
const TWO: Keys = Keys::At { first: 1, last: 2, step: 1 };
const STORED: Keys = Keys::Found(radius_keys);
const GEO: Group = Group::Geo;

#[rustfmt::skip]
pub(crate) const COMMANDS: &[Spec] = &[
    spec("geoadd", -5, GROW, Keys::ONE, GEO, "3.2.0", "Adds places.", geoadd),
    spec("geopos", -2, READ, Keys::ONE, GEO, "3.2.0", "Returns where places are.", geopos),
    spec("geodist", -4, READ, Keys::ONE, GEO, "3.2.0", "Returns how far two places are from each other.", geodist),
    spec("geohash", -2, READ, Keys::ONE, GEO, "3.2.0", "Returns where places are, in letters.", geohash),
    spec("geosearch", -7, READ, Keys::ONE, GEO, "6.2.0", "Returns the places in a circle or box.", geosearch),
    spec("geosearchstore", -8, GROW, TWO, GEO, "6.2.0", "Stores the places in a circle or box.", geosearchstore),
    spec("georadius", -6, MAY_STORE, STORED, GEO, "3.2.0", "Returns or stores the places in a circle.", georadius),
    spec("georadius_ro", -6, READ, Keys::ONE, GEO, "3.2.10", "Returns the places in a circle.", georadius_ro),
    spec("georadiusbymember", -5, MAY_STORE, STORED, GEO, "3.2.0", "Returns or stores the places around one.", georadiusbymember),
    spec("georadiusbymember_ro", -5, READ, Keys::ONE, GEO, "3.2.10", "Returns the places around one.", georadiusbymember_ro),
];

/// The key of GEORADIUS, and that which it stores to.
fn radius_keys(args: Args<'_>) -> Vec<usize> {
    let stores = |at: &usize| {
        let stores = |word| is(word, "STORE") || is(word, "STOREDIST");
        args.get(*at).is_some_and(stores)
    };
    let store = (5..args.len().saturating_sub(1)).rfind(stores);
    std::iter::once(1).chain(store.map(|at| at + 1)).collect()
}

/// A place in two words.
fn point(longitude: &[u8], latitude: &[u8]) -> Result<Point, Fault> {
    let point = Point { longitude: float(longitude)?, latitude: float(latitude)? };
    let is_place = point.longitude.abs() <= LONGITUDE_MAX && point.latitude.abs() <= LATITUDE_MAX;
    if !is_place {
        let Point { longitude, latitude } = point;
        let fault = format!("ERR invalid longitude,latitude pair {longitude:.6},{latitude:.6}");
        return Err(Fault::text(fault));
    }
    Ok(point)
}

/// How many metres a unit is.
fn unit(word: &[u8]) -> Result<f64, Fault> {
    match word {
        word if is(word, "M") => Ok(1.0),
        word if is(word, "KM") => Ok(1000.0),
        word if is(word, "FT") => Ok(0.3048),
        word if is(word, "MI") => Ok(1609.34),
        _ => Err(Fault::text("ERR unsupported unit provided. please use M, KM, FT, MI")),
    }
}

fn geoadd(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let mut rule = Rule::default();
    let mut at = 2;
    while let Some(word) = args.get(at) {
        match word {
            word if is(word, "NX") => rule.if_new = true,
            word if is(word, "XX") => rule.if_there = true,
            word if is(word, "CH") => rule.changed = true,
            _ => break,
        }
        at += 1;
    }
    let words: Vec<&[u8]> = args.iter().skip(at).collect();
    if words.is_empty() || !words.len().is_multiple_of(3) || (rule.if_new && rule.if_there) {
        return Err(Fault::Syntax);
    }
    let place = |words: &[&[u8]]| point(words[0], words[1]).map(Point::score);
    let scores: Vec<f64> = words.chunks(3).map(place).collect::<Result<Vec<_>, Fault>>()?;
    call.engine.keys.zset(call.db, &args[1])?;
    let members = scores.into_iter().zip(words.iter().skip(2).step_by(3).copied());
    let added = add(call, &args[1], rule, members)?;
    reply_added(call, rule, &added);
    Ok(())
}

/// Writes a coordinate: all digits up to the 17th behind the point.
fn reply_coordinate(out: &mut Output, degrees: f64) {
    let text = format!("{degrees:.17}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    let text = if text == "-0" { "0" } else { text };
    if out.resp3 {
        out.out.extend_from_slice(format!(",{text}\r\n").as_bytes());
    } else {
        out.bulk(text.as_bytes());
    }
}

fn reply_point(out: &mut Output, point: Point) {
    out.array(2);
    reply_coordinate(out, point.longitude);
    reply_coordinate(out, point.latitude);
}

fn reply_distance(out: &mut Output, distance: f64) {
    out.bulk(format!("{distance:.4}").as_bytes());
}

/// Where a member is.
fn place_of(scores: Option<Scores<'_>>, member: &[u8]) -> Option<Point> {
    scores.and_then(|scores| scores.score(member)).map(Point::of_score)
}

fn geopos(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let found = call.look(&args[1]);
    let scores = found.map(|found| call.engine.keys.scores(found)).transpose()?;
    call.out.array(args.len() - 2);
    for member in args.iter().skip(2) {
        match place_of(scores, member) {
            Some(point) => reply_point(&mut call.out, point),
            None => call.out.null_array(),
        }
    }
    Ok(())
}

fn geohash(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let found = call.look(&args[1]);
    let scores = found.map(|found| call.engine.keys.scores(found)).transpose()?;
    call.out.array(args.len() - 2);
    for member in args.iter().skip(2) {
        match place_of(scores, member) {
            Some(point) => call.out.bulk(&point.letters()),
            None => call.out.null(),
        }
    }
    Ok(())
}

fn geodist(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let metres = match args.len() {
        4 => 1.0,
        5 => unit(&args[4])?,
        _ => return Err(Fault::Syntax),
    };
    let found = call.look(&args[1]);
    let scores = found.map(|found| call.engine.keys.scores(found)).transpose()?;
    match place_of(scores, &args[2]).zip(place_of(scores, &args[3])) {
        Some((one, other)) => reply_distance(&mut call.out, one.distance(other) / metres),
        None => call.out.null(),
    }
    Ok(())
}

/// Which of the commands that search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Search,
    SearchStore,
    Radius,
    RadiusReadOnly,
}

/// What a search asks for besides where.
#[derive(Default)]
struct Query<'a> {
    with_distance: bool,
    with_hash: bool,
    with_place: bool,
    any: bool,
    /// All, if zero.
    count: u64,
    descending: Option<bool>,
    store: Option<&'a [u8]>,
    store_distance: bool,
    centre: Option<Point>,
    /// FROMMEMBER or FROMLONLAT was said, though there may be no key that has the member.
    has_centre: bool,
    shape: Option<Shape>,
    /// Metres of the unit that distances are told in.
    unit: f64,
}

fn length(word: &[u8], fault: &'static str) -> Result<f64, Fault> {
    parse_float(word).ok_or(Fault::text(fault))
}

/// A radius in metres, and its unit.
fn radius(number: &[u8], unit_word: &[u8]) -> Result<(Shape, f64), Fault> {
    let radius = length(number, "ERR need numeric radius")?;
    if radius < 0.0 {
        return Err(Fault::text("ERR radius cannot be negative"));
    }
    let unit = unit(unit_word)?;
    Ok((Shape::Circle { radius: radius * unit }, unit))
}

/// A box in metres, and its unit.
fn rectangle(width: &[u8], height: &[u8], unit_word: &[u8]) -> Result<(Shape, f64), Fault> {
    let width = length(width, "ERR need numeric width")?;
    let height = length(height, "ERR need numeric height")?;
    if width < 0.0 || height < 0.0 {
        return Err(Fault::text("ERR height or width cannot be negative"));
    }
    let unit = unit(unit_word)?;
    Ok((Shape::Box { width: width * unit, height: height * unit }, unit))
}

/// Where a member is that a search is around. None if there is no such key at all.
fn centre_of(scores: Option<Scores<'_>>, member: &[u8]) -> Result<Option<Point>, Fault> {
    let fault = || Fault::text("ERR could not decode requested zset member");
    scores.map(|_| place_of(scores, member).ok_or_else(fault)).transpose()
}

impl<'a> Query<'a> {
    /// Reads the options of a search. A key that is not there is none of its faults.
    fn take_options(
        &mut self,
        words: &[&'a [u8]],
        form: Form,
        scores: Option<Scores<'_>>,
    ) -> Result<(), Fault> {
        let searches = matches!(form, Form::Search | Form::SearchStore);
        let mut at = 0;
        while let Some(word) = words.get(at) {
            let left = words.len() - at - 1;
            let next = |by: usize| words[at + by];
            at += 1 + match word {
                word if self.take_flag(word) => 0,
                word if is(word, "COUNT") && left > 0 => {
                    let count = int(next(1))?;
                    let count = u64::try_from(count).ok().filter(|count| *count > 0);
                    self.count = count.ok_or(Fault::text("ERR COUNT must be > 0"))?;
                    1
                }
                word if form == Form::Radius && left > 0 && is(word, "STORE") => {
                    (self.store, self.store_distance) = (Some(next(1)), false);
                    1
                }
                word if form == Form::Radius && left > 0 && is(word, "STOREDIST") => {
                    (self.store, self.store_distance) = (Some(next(1)), true);
                    1
                }
                word if form == Form::SearchStore && is(word, "STOREDIST") => {
                    self.store_distance = true;
                    0
                }
                word if searches && !self.has_centre && left > 0 && is(word, "FROMMEMBER") => {
                    (self.centre, self.has_centre) = (centre_of(scores, next(1))?, true);
                    1
                }
                word if searches && !self.has_centre && left > 1 && is(word, "FROMLONLAT") => {
                    (self.centre, self.has_centre) = (Some(point(next(1), next(2))?), true);
                    2
                }
                word if searches && self.shape.is_none() && left > 1 && is(word, "BYRADIUS") => {
                    let (shape, unit) = radius(next(1), next(2))?;
                    (self.shape, self.unit) = (Some(shape), unit);
                    2
                }
                word if searches && self.shape.is_none() && left > 2 && is(word, "BYBOX") => {
                    let (shape, unit) = rectangle(next(1), next(2), next(3))?;
                    (self.shape, self.unit) = (Some(shape), unit);
                    3
                }
                _ => return Err(Fault::Syntax),
            };
        }
        Ok(())
    }

    /// Takes an option of one word; returns whether it is one.
    fn take_flag(&mut self, word: &[u8]) -> bool {
        match word {
            word if is(word, "WITHDIST") => self.with_distance = true,
            word if is(word, "WITHHASH") => self.with_hash = true,
            word if is(word, "WITHCOORD") => self.with_place = true,
            word if is(word, "ANY") => self.any = true,
            word if is(word, "ASC") => self.descending = Some(false),
            word if is(word, "DESC") => self.descending = Some(true),
            _ => return false,
        }
        true
    }

    fn check(&self, form: Form, name: &[u8]) -> Result<(), Fault> {
        let tells = self.with_distance || self.with_hash || self.with_place;
        let searches = matches!(form, Form::Search | Form::SearchStore);
        let fault = match () {
            () if tells && self.store.is_some() => format!(
                "ERR {} is not compatible with WITHDIST, WITHHASH and WITHCOORD options",
                if searches { "GEOSEARCHSTORE" } else { "STORE option in GEORADIUS" },
            ),
            () if searches && !self.has_centre => format!(
                "ERR exactly one of FROMMEMBER or FROMLONLAT can be specified for {}",
                quoted(name),
            ),
            () if searches && self.shape.is_none() => format!(
                "ERR exactly one of BYRADIUS and BYBOX can be specified for {}",
                quoted(name),
            ),
            () if self.any && self.count == 0 => {
                "ERR the ANY argument requires COUNT argument".to_owned()
            }
            () => return Ok(()),
        };
        Err(Fault::text(fault))
    }

    /// Looks for members, as many as are wanted, in their order.
    fn look(&self, scores: Scores<'_>, search: &Search) -> Vec<Hit> {
        let enough = if self.any { self.count as usize } else { usize::MAX };
        let (mut hits, mut room) = (Vec::new(), [0; 20]);
        for (from, to) in search.ranges() {
            if hits.len() >= enough {
                break;
            }
            let ranks = scores.score_range(Bound::Included(from), Bound::Excluded(to));
            scores.each_in(ranks, false, |member, score| {
                let point = Point::of_score(score);
                if hits.len() < enough
                    && let Some(distance) = search.distance(point)
                {
                    let member = member.as_bytes(&mut room).to_vec();
                    hits.push(Hit { member, score, distance, point });
                }
            });
        }
        let sorts = self.count > 0 && !self.any;
        match self.descending.or(sorts.then_some(false)) {
            Some(true) => hits.sort_by(|one, other| other.distance.total_cmp(&one.distance)),
            Some(false) => hits.sort_by(|one, other| one.distance.total_cmp(&other.distance)),
            None => {}
        }
        if self.count > 0 {
            hits.truncate(usize::try_from(self.count).unwrap_or(usize::MAX));
        }
        hits
    }

    fn reply(&self, out: &mut Output, hits: &[Hit]) {
        let told = [self.with_distance, self.with_hash, self.with_place];
        let told = told.into_iter().filter(|told| *told).count();
        out.array(hits.len());
        for hit in hits {
            if told > 0 {
                out.array(1 + told);
            }
            out.bulk(&hit.member);
            if self.with_distance {
                reply_distance(out, hit.distance / self.unit);
            }
            if self.with_hash {
                out.int(hit.score as i64);
            }
            if self.with_place {
                reply_point(out, hit.point);
            }
        }
    }
}

/// A member that was found.
struct Hit {
    member: Vec<u8>,
    score: f64,
    /// In metres.
    distance: f64,
    point: Point,
}

/// Searches, once all words were read, and answers or stores what was found.
fn answer(
    call: &mut Call<'_>,
    key: &[u8],
    name: &[u8],
    form: Form,
    query: &Query<'_>,
) -> Result<(), Fault> {
    query.check(form, name)?;
    let scores = call.engine.keys.zset(call.db, key)?;
    let search = query.centre.zip(query.shape).map(|(centre, shape)| Search { centre, shape });
    let hits = match scores.zip(search) {
        Some((scores, search)) => query.look(scores, &search),
        None => Vec::new(),
    };
    let Some(to) = query.store else {
        query.reply(&mut call.out, &hits);
        return Ok(());
    };
    let score =
        |hit: &Hit| if query.store_distance { hit.distance / query.unit } else { hit.score };
    let mut members: Vec<_> = hits
        .into_iter()
        .map(|hit| {
            let score = score(&hit);
            (hit.member, score)
        })
        .collect();
    let searches = form == Form::SearchStore;
    store(call, to, &mut members, if searches { "geosearchstore" } else { "georadiusstore" })
}

fn geosearch(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let words: Vec<&[u8]> = args.iter().collect();
    let mut query = Query { unit: 1.0, ..Query::default() };
    let found = call.look(words[1]);
    let scores = found.map(|found| call.engine.keys.scores(found)).transpose()?;
    query.take_options(&words[2..], Form::Search, scores)?;
    answer(call, words[1], words[0], Form::Search, &query)
}

fn geosearchstore(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let words: Vec<&[u8]> = args.iter().collect();
    let mut query = Query { unit: 1.0, store: Some(words[1]), ..Query::default() };
    let found = call.look(words[2]);
    let scores = found.map(|found| call.engine.keys.scores(found)).transpose()?;
    query.take_options(&words[3..], Form::SearchStore, scores)?;
    answer(call, words[2], words[0], Form::SearchStore, &query)
}

fn around_point(call: &mut Call<'_>, args: Args<'_>, form: Form) -> Result<(), Fault> {
    let words: Vec<&[u8]> = args.iter().collect();
    let found = call.look(words[1]);
    let scores = found.map(|found| call.engine.keys.scores(found)).transpose()?;
    let centre = point(words[2], words[3])?;
    let (shape, unit) = radius(words[4], words[5])?;
    let mut query = Query { unit, shape: Some(shape), centre: Some(centre), ..Query::default() };
    query.take_options(&words[6..], form, scores)?;
    answer(call, words[1], words[0], form, &query)
}

fn georadius(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    around_point(call, args, Form::Radius)
}

fn georadius_ro(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    around_point(call, args, Form::RadiusReadOnly)
}

fn around_member(call: &mut Call<'_>, args: Args<'_>, form: Form) -> Result<(), Fault> {
    let words: Vec<&[u8]> = args.iter().collect();
    let found = call.look(words[1]);
    let scores = found.map(|found| call.engine.keys.scores(found)).transpose()?;
    let mut query = Query { unit: 1.0, ..Query::default() };
    // Without a key nothing is wrong with a radius.
    if scores.is_some() {
        query.centre = centre_of(scores, words[2])?;
        let (shape, unit) = radius(words[3], words[4])?;
        (query.shape, query.unit) = (Some(shape), unit);
    }
    query.take_options(&words[5..], form, scores)?;
    answer(call, words[1], words[0], form, &query)
}

fn georadiusbymember(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    around_member(call, args, Form::Radius)
}

fn georadiusbymember_ro(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    around_member(call, args, Form::RadiusReadOnly)
}
