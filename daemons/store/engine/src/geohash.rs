//! Places on the earth as numbers of 52 bits, such that what is near has a number in one of few
//! ranges: the scores of the members that GEOADD adds.
//!
//! ```text
//!   latitude   bits 0 2 4 … 50      in the square of ±180° and ±85.05112878°, halved 26 times
//!   longitude  bits 1 3 5 … 51
//! ```
//!
//! A search covers its area by the square that the centre is in, of a size near that of the area,
//! and the eight around it, but for those that have no part in it.

/// The earth's radius, in metres.
const EARTH_RADIUS: f64 = 6_372_797.560_856;
/// Half of the equator, in metres.
const MERCATOR_MAX: f64 = 20_037_726.37;
/// Degrees of longitude and latitude up to which there are places.
pub(crate) const LONGITUDE_MAX: f64 = 180.0;
pub(crate) const LATITUDE_MAX: f64 = 85.051_128_78;
/// How often a square is halved in either direction for a score.
const STEPS: u32 = 26;

/// A place: degrees of longitude and latitude.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Point {
    pub(crate) longitude: f64,
    pub(crate) latitude: f64,
}

/// A square of the grid whose sides are halved so often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Square {
    bits: u64,
    steps: u32,
}

/// The place of a square: least and greatest longitude, least and greatest latitude.
struct Area {
    west: f64,
    east: f64,
    south: f64,
    north: f64,
}

const EVEN: u64 = 0x5555_5555_5555_5555;
const ODD: u64 = 0xAAAA_AAAA_AAAA_AAAA;

/// The lower 32 bits, each moved to twice its place.
fn spread(bits: u64) -> u64 {
    let mut bits = bits & 0xFFFF_FFFF;
    for (shift, mask) in [
        (16, 0x0000_FFFF_0000_FFFF),
        (8, 0x00FF_00FF_00FF_00FF),
        (4, 0x0F0F_0F0F_0F0F_0F0F),
        (2, 0x3333_3333_3333_3333),
        (1, EVEN),
    ] {
        bits = (bits | bits << shift) & mask;
    }
    bits
}

/// The bits at even places, moved together.
fn gather(bits: u64) -> u64 {
    let mut bits = bits & EVEN;
    for (shift, mask) in [
        (1, 0x3333_3333_3333_3333),
        (2, 0x0F0F_0F0F_0F0F_0F0F),
        (4, 0x00FF_00FF_00FF_00FF),
        (8, 0x0000_FFFF_0000_FFFF),
        (16, 0x0000_0000_FFFF_FFFF),
    ] {
        bits = (bits | bits >> shift) & mask;
    }
    bits
}

/// The number of a place in a grid that is so high.
fn encode(point: Point, latitude_max: f64, steps: u32) -> u64 {
    let cells = (1u64 << steps) as f64;
    let latitude = (point.latitude + latitude_max) / (latitude_max * 2.0) * cells;
    let longitude = (point.longitude + LONGITUDE_MAX) / (LONGITUDE_MAX * 2.0) * cells;
    spread(latitude as u64) | spread(longitude as u64) << 1
}

impl Square {
    fn of(point: Point, steps: u32) -> Square {
        Square { bits: encode(point, LATITUDE_MAX, steps), steps }
    }

    fn area(self) -> Area {
        let cells = (1u64 << self.steps) as f64;
        let (latitude, longitude) = (gather(self.bits) as f64, gather(self.bits >> 1) as f64);
        let degrees = |cell: f64, max: f64| -max + cell / cells * (max * 2.0);
        Area {
            west: degrees(longitude, LONGITUDE_MAX),
            east: degrees(longitude + 1.0, LONGITUDE_MAX),
            south: degrees(latitude, LATITUDE_MAX),
            north: degrees(latitude + 1.0, LATITUDE_MAX),
        }
    }

    /// The square so many to the east and north, round the earth.
    fn beside(self, east: i32, north: i32) -> Square {
        let unused = 64 - self.steps * 2;
        let (odd, even) = (ODD >> unused, EVEN >> unused);
        // The bits between those that count are set, so that a carry passes them.
        let step = |own: u64, others: u64, mask: u64, by: i32| match by {
            0 => own,
            1.. => own.wrapping_add(others + 1) & mask,
            _ => (own | others).wrapping_sub(others + 1) & mask,
        };
        let x = step(self.bits & ODD, even, odd, east);
        let y = step(self.bits & EVEN, odd, even, north);
        Square { bits: x | y, ..self }
    }

    /// The scores of the places in it.
    fn scores(self) -> (f64, f64) {
        let shift = 2 * (STEPS - self.steps);
        ((self.bits << shift) as f64, ((self.bits + 1) << shift) as f64)
    }
}

impl Point {
    /// The score of a member that is here.
    pub(crate) fn score(self) -> f64 {
        Square::of(self, STEPS).bits as f64
    }

    /// Where a member of this score is.
    pub(crate) fn of_score(score: f64) -> Point {
        let area = Square { bits: bits_of(score), steps: STEPS }.area();
        let middle = |low: f64, high: f64, max: f64| ((low + high) / 2.0).clamp(-max, max);
        Point {
            longitude: middle(area.west, area.east, LONGITUDE_MAX),
            latitude: middle(area.south, area.north, LATITUDE_MAX),
        }
    }

    /// The usual eleven letters for it, which have the poles in their grid.
    pub(crate) fn letters(self) -> [u8; 11] {
        const LETTERS: &[u8; 32] = b"0123456789bcdefghjkmnpqrstuvwxyz";
        let bits = encode(self, 90.0, STEPS);
        // 52 bits are ten letters and a part of one more.
        std::array::from_fn(|at| match at {
            10 => LETTERS[0],
            at => LETTERS[(bits >> (52 - (at + 1) * 5)) as usize & 0x1F],
        })
    }

    /// Metres between two places.
    pub(crate) fn distance(self, other: Point) -> f64 {
        let v = ((other.longitude.to_radians() - self.longitude.to_radians()) / 2.0).sin();
        if v == 0.0 {
            return latitude_distance(self.latitude, other.latitude);
        }
        let (here, there) = (self.latitude.to_radians(), other.latitude.to_radians());
        let u = ((there - here) / 2.0).sin();
        let a = u * u + here.cos() * there.cos() * v * v;
        2.0 * EARTH_RADIUS * a.sqrt().asin()
    }
}

/// The bits of any score, also of one that was never a place's: below zero it is taken as a signed
/// number, and what is beyond all numbers of 64 bits has no bits.
fn bits_of(score: f64) -> u64 {
    const BEYOND: f64 = 18_446_744_073_709_551_616.0;
    match score {
        _ if score < 0.0 => score as i64 as u64,
        _ if score < BEYOND => score as u64,
        _ => 0,
    }
}

/// A division, where the standard library multiplies: the last digits are others.
fn degrees(radians: f64) -> f64 {
    radians / (std::f64::consts::PI / 180.0)
}

fn latitude_distance(one: f64, other: f64) -> f64 {
    EARTH_RADIUS * (other.to_radians() - one.to_radians()).abs()
}

/// What is searched, around its centre, in metres.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Shape {
    Circle { radius: f64 },
    Box { width: f64, height: f64 },
}

/// A search.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Search {
    pub(crate) centre: Point,
    pub(crate) shape: Shape,
}

impl Search {
    /// How far a place is from the centre, if it is in the shape.
    pub(crate) fn distance(&self, point: Point) -> Option<f64> {
        match self.shape {
            Shape::Circle { radius } => {
                Some(self.centre.distance(point)).filter(|distance| *distance <= radius)
            }
            Shape::Box { width, height } => {
                let beside = Point { latitude: point.latitude, ..self.centre };
                let outside = latitude_distance(point.latitude, self.centre.latitude)
                    > height / 2.0
                    || point.distance(beside) > width / 2.0;
                (!outside).then(|| self.centre.distance(point))
            }
        }
    }

    /// The square in degrees that the shape is in.
    fn bounds(&self) -> Area {
        let (width, height) = match self.shape {
            Shape::Circle { radius } => (radius, radius),
            Shape::Box { width, height } => (width / 2.0, height / 2.0),
        };
        let Point { longitude, latitude } = self.centre;
        let up = degrees(height / EARTH_RADIUS);
        // A degree of longitude is shortest at the edge that is nearer to a pole.
        let edge = if latitude < 0.0 { latitude - up } else { latitude + up };
        let aside = degrees(width / EARTH_RADIUS / edge.to_radians().cos());
        Area {
            west: longitude - aside,
            east: longitude + aside,
            south: latitude - up,
            north: latitude + up,
        }
    }

    fn steps(&self) -> u32 {
        let mut metres = match self.shape {
            Shape::Circle { radius } => radius,
            Shape::Box { width, height } => {
                ((width / 2.0) * (width / 2.0) + (height / 2.0) * (height / 2.0)).sqrt()
            }
        };
        if metres == 0.0 {
            return STEPS;
        }
        let mut steps = 1i32;
        while metres < MERCATOR_MAX {
            metres *= 2.0;
            steps += 1;
        }
        // Most areas are within the square and those beside it then; near the poles they are wide.
        let latitude = self.centre.latitude.abs();
        steps -= 2 + i32::from(latitude > 66.0) + i32::from(latitude > 80.0);
        steps.clamp(1, STEPS as i32) as u32
    }

    /// Ranges of scores that have all members of the search, and others: from each first to before
    /// each second.
    pub(crate) fn ranges(&self) -> Vec<(f64, f64)> {
        /// The order in which they are looked through.
        const AROUND: [(i32, i32); 9] =
            [(0, 0), (0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1)];
        let (bounds, mut steps) = (self.bounds(), self.steps());
        let mut middle = Square::of(self.centre, steps);
        let is_too_small = middle.beside(0, 1).area().north < bounds.north
            || middle.beside(0, -1).area().south > bounds.south
            || middle.beside(1, 0).area().east < bounds.east
            || middle.beside(-1, 0).area().west > bounds.west;
        if steps > 1 && is_too_small {
            steps -= 1;
            middle = Square::of(self.centre, steps);
        }
        let area = middle.area();
        let is_needless = |(east, north): (i32, i32)| {
            steps >= 2
                && ((north < 0 && area.south < bounds.south)
                    || (north > 0 && area.north > bounds.north)
                    || (east < 0 && area.west < bounds.west)
                    || (east > 0 && area.east > bounds.east))
        };
        let (mut ranges, mut last) = (Vec::with_capacity(9), None);
        for around in AROUND.into_iter().filter(|around| !is_needless(*around)) {
            let square = middle.beside(around.0, around.1);
            // Where the squares are large, those beside each other are the same.
            if last == Some(square) {
                continue;
            }
            if around != (0, 0) {
                last = Some(square);
            }
            ranges.push(square.scores());
        }
        ranges
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_spread_and_gathered() {
        for bits in [0, 1, 0x8000_0000, 0xFFFF_FFFF, 0x1234_5678] {
            assert_eq!(gather(spread(bits)), bits);
        }
        assert_eq!(spread(0b1011), 0b100_0101);
    }

    #[test]
    fn a_square_s_neighbours_are_beside_it() {
        let middle = Square::of(Point { longitude: 13.36, latitude: 38.11 }, 10);
        let (area, east) = (middle.area(), middle.beside(1, 0).area());
        assert!((east.west - area.east).abs() < 1e-9 && (east.south - area.south).abs() < 1e-9);
        let north = middle.beside(0, 1).area();
        assert!((north.south - area.north).abs() < 1e-9 && (north.west - area.west).abs() < 1e-9);
        assert_eq!(middle.beside(1, 1).beside(-1, -1), middle);
        // Round the earth.
        let edge = Square::of(Point { longitude: 179.99, latitude: 0.0 }, 10);
        assert!((edge.beside(1, 0).area().west + 180.0).abs() < 1e-9);
    }

    #[test]
    fn palermo_is_where_it_is() {
        let palermo = Point { longitude: 13.361389, latitude: 38.115556 };
        let catania = Point { longitude: 15.087269, latitude: 37.502669 };
        assert_eq!(palermo.score(), 3479099956230698.0);
        let (one, other) = (Point::of_score(palermo.score()), Point::of_score(catania.score()));
        assert_eq!(format!("{:.4}", one.distance(other)), "166274.1516");
        assert_eq!(&one.letters(), b"sqc8b49rny0");
        assert_eq!(format!("{:.17}", one.longitude), "13.36138933897018433");
    }
}
