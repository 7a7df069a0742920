//! How a floating point number is printed in a reply.
//!
//! The digits are the fewest that are read back as the same number. Their form is the server's:
//! a whole number up to 2^62 as such, the rest with an exponent where plain digits would be long.
//!
//! ```text
//!   digits 123, the last one worth 10^k
//!     k  0 … 7, or the number whole      123000      zeros behind them
//!     k −1 … −6, or first digit ≥ 10^-3  0.00123     a point among or before them
//!     else                               1.23e-7     an exponent with its sign if it is positive
//! ```
//!
//! Redis' own printer misses the fewest digits, or the nearest of as few, for about one number in a
//! thousand, and then prints others that are read back as the same: `99999999999999990000000` for
//! 1e23.

/// The longest number: a sign, 17 digits, a point, and an exponent of five characters; or what
/// zeros make of one, `-0.00012345678901234567`.
pub const DOUBLE_BYTES_MAX: usize = 32;

/// Whole numbers up to here are printed as such: the largest `f64` not above half of `i64::MAX`,
/// after rounding, 2^62.
const WHOLE_MAX: f64 = 4_611_686_018_427_387_904.0;

/// The most zeros behind the digits of a number above [`WHOLE_MAX`].
const ZEROS_BEHIND_MAX: i32 = 7;
/// The most digits behind the point, unless the first digit is near it.
const DECIMALS_MAX: i32 = 6;
/// The first digit is near the point if its worth is 10^-3 to 10^3.
const NEAR_POINT: i32 = 3;
/// The most digits that an `f64` needs.
const DIGITS_MAX: usize = 17;

/// Memory to print a number into.
#[derive(Clone, Debug, Default)]
pub struct DoubleBuf {
    bytes: [u8; DOUBLE_BYTES_MAX],
    len: usize,
}

impl DoubleBuf {
    /// An empty one.
    pub fn new() -> DoubleBuf {
        DoubleBuf::default()
    }

    /// Prints `value`, as replies have it: `3`, `3.5`, `1e+20`, `inf`, `-inf`, `nan`, `-0`.
    pub fn format(&mut self, value: f64) -> &[u8] {
        self.len = 0;
        if value.is_nan() {
            self.put(b"nan");
        } else if value.is_infinite() {
            self.put(if value > 0.0 { b"inf" } else { b"-inf" });
        } else if value == 0.0 && value.is_sign_negative() {
            self.put(b"-0");
        } else if value.abs() <= WHOLE_MAX && value.trunc() == value {
            self.put(itoa::Buffer::new().format(value as i64).as_bytes());
        } else {
            self.put_digits(value);
        }
        &self.bytes[..self.len]
    }

    fn put(&mut self, bytes: &[u8]) {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    fn put_zeros(&mut self, count: usize) {
        self.bytes[self.len..self.len + count].fill(b'0');
        self.len += count;
    }

    /// Prints a finite number that is not zero.
    fn put_digits(&mut self, value: f64) {
        let mut printed = zmij::Buffer::new();
        let mut digits = [0; DIGITS_MAX];
        let (digits, worth) = shortest(printed.format_finite(value.abs()), &mut digits);
        if value < 0.0 {
            self.put(b"-");
        }
        let first_worth = worth + digits.len() as i32 - 1;
        if (0..=ZEROS_BEHIND_MAX).contains(&worth) {
            self.put(digits);
            self.put_zeros(worth as usize);
        } else if worth < 0 && (worth >= -DECIMALS_MAX || first_worth.abs() <= NEAR_POINT) {
            self.put_decimal(digits, worth);
        } else {
            self.put_scientific(digits, first_worth);
        }
    }

    fn put_decimal(&mut self, digits: &[u8], worth: i32) {
        let decimals = worth.unsigned_abs() as usize;
        if let Some(whole) = digits.len().checked_sub(decimals).filter(|whole| *whole > 0) {
            self.put(&digits[..whole]);
            self.put(b".");
            self.put(&digits[whole..]);
        } else {
            self.put(b"0.");
            self.put_zeros(decimals - digits.len());
            self.put(digits);
        }
    }

    fn put_scientific(&mut self, digits: &[u8], exponent: i32) {
        self.put(&digits[..1]);
        if digits.len() > 1 {
            self.put(b".");
            self.put(&digits[1..]);
        }
        self.put(if exponent < 0 { b"e-" } else { b"e+" });
        self.put(itoa::Buffer::new().format(exponent.unsigned_abs()).as_bytes());
    }
}

/// The digits of a printed number without zeros around them, and the worth of the last one as a
/// power of ten.
fn shortest<'d>(printed: &str, digits: &'d mut [u8; DIGITS_MAX]) -> (&'d [u8], i32) {
    let (mantissa, exponent) = printed.split_once('e').unwrap_or((printed, "0"));
    let exponent: i32 = exponent.parse().expect("an exponent is a small number");
    let (whole, decimals) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let decimals = decimals.trim_end_matches('0');
    let (mut len, mut worth) = (0, exponent - decimals.len() as i32);
    let (whole, zeros) = if decimals.is_empty() {
        let trimmed = whole.trim_end_matches('0');
        (trimmed, whole.len() - trimmed.len())
    } else {
        (whole, 0)
    };
    worth += zeros as i32;
    for digit in whole.bytes().chain(decimals.bytes()) {
        if len > 0 || digit != b'0' {
            digits[len] = digit;
            len += 1;
        }
    }
    assert!(len > 0, "zero is printed elsewhere");
    (&digits[..len], worth)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn printed(value: f64) -> String {
        String::from_utf8(DoubleBuf::new().format(value).to_vec()).expect("ASCII")
    }

    #[test]
    fn a_number_has_the_servers_form() {
        for (value, expected) in [
            (3.0, "3"),
            (-3.5, "-3.5"),
            (0.0, "0"),
            (-0.0, "-0"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "nan"),
            (-f64::NAN, "nan"),
            (0.1, "0.1"),
            (0.1 + 0.2, "0.30000000000000004"),
            (1e15, "1000000000000000"),
            (4_611_686_018_427_387_904.0, "4611686018427387904"),
            (-4_611_686_018_427_387_904.0, "-4611686018427387904"),
            (9_223_372_036_854_775_808.0, "9223372036854776000"),
            (1e20, "1e+20"),
            (123e18, "1.23e+20"),
            (123_456_789_012_345_680_000.0, "123456789012345680000"),
            (1_234_567_890_123_456_789_012.0, "1234567890123456800000"),
            (12345.678901234567, "1.2345678901234567e+4"),
            (1234.5678901234567, "1234.5678901234567"),
            (1_234_567.891_234_5, "1.2345678912345e+6"),
            (12_345_678.9, "12345678.9"),
            (123_456.789, "123456.789"),
            (1e-5, "0.00001"),
            (1e-6, "0.000001"),
            (1e-7, "1e-7"),
            (0.00001234, "1.234e-5"),
            (0.00012345678, "1.2345678e-4"),
            (0.0012345678, "0.0012345678"),
            (1.5e-7, "1.5e-7"),
            (f64::MAX, "1.7976931348623157e+308"),
            (f64::MIN, "-1.7976931348623157e+308"),
            (5e-324, "5e-324"),
            (-f64::MIN_POSITIVE, "-2.2250738585072014e-308"),
        ] {
            assert_eq!(printed(value), expected);
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back_as_the_same_number(bits: u64, small: i32, scale in 0i32..12) {
            let decimal = f64::from(small) / 10f64.powi(scale);
            for value in [f64::from_bits(bits), decimal, decimal * 1e13, f64::from(small)] {
                let text = printed(value);
                let back: f64 = text.parse().expect("a number");
                prop_assert!(back == value || value.is_nan() && back.is_nan(), "{} {}", value, text);
            }
        }
    }
}
