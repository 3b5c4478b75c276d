//! JSON as `JSON.stringify` writes it, for receivers that sign what they have parsed. Pure.
//!
//! A number whose value a JavaScript number has, and reads back, is written in JavaScript's own form:
//! `12.50` is `12.5`, `1E+3` is `1000`. One with more digits than that would lose some; it stays as it is.

use crate::event::datum;

/// Rewrites the JSON text that begins at `start` of `out`, which has no white space between tokens.
pub(crate) fn rewrite(out: &mut Vec<u8>, start: usize) {
    if start >= out.len() {
        return;
    }
    let text = out.split_off(start);
    let mut rest = text.as_slice();
    while let Some(&first) = rest.first() {
        let length = match first {
            b'"' => string_length(rest),
            b'-' | b'0'..=b'9' => rest.iter().take_while(|byte| is_of_number(**byte)).count(),
            _ => 1,
        };
        let (token, after) = rest.split_at(length.min(rest.len()));
        rest = after;
        match first {
            b'"' if token.contains(&b'\\') => match serde_json::from_slice::<String>(token) {
                Ok(plain) => datum::write_string(out, plain.as_bytes()),
                // A lone surrogate is written as it was.
                Err(_) => out.extend_from_slice(token),
            },
            b'-' | b'0'..=b'9' => match number(token) {
                Some(number) => out.extend_from_slice(number.as_bytes()),
                None => out.extend_from_slice(token),
            },
            _ => out.extend_from_slice(token),
        }
    }
}

fn is_of_number(byte: u8) -> bool {
    byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E')
}

/// The length of the string that `text` begins with.
fn string_length(text: &[u8]) -> usize {
    let mut at = 1;
    loop {
        match text.get(at) {
            Some(b'"') => return at + 1,
            Some(b'\\') => at += 2,
            Some(_) => at += 1,
            None => return text.len(),
        }
    }
}

/// A number as digits without zeros at either end, and the power of ten of the last of them.
#[derive(Debug, Eq, PartialEq)]
struct Decimal {
    negative: bool,
    digits: String,
    exponent: i64,
}

impl Decimal {
    fn read(text: &str) -> Option<Self> {
        let (negative, text) = match text.strip_prefix('-') {
            Some(text) => (true, text),
            None => (false, text),
        };
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
            None => (text, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = [whole, fraction].concat();
        let digits = all.trim_end_matches('0');
        let cut = i64::try_from(all.len() - digits.len()).ok()?;
        let places = i64::try_from(fraction.len()).ok()?;
        let exponent = exponent.checked_sub(places)?.checked_add(cut)?;
        let digits = digits.trim_start_matches('0').to_owned();
        Some(match digits.as_str() {
            // JSON.stringify(-0) is 0.
            "" => Self { negative: false, digits, exponent: 0 },
            _ => Self { negative, digits, exponent },
        })
    }
}

/// JavaScript's form of a number (ECMA-262, Number::toString), if it has the number.
fn number(token: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(token).ok()?;
    let decimal = Decimal::read(text)?;
    let double: f64 = text.parse().ok()?;
    // The shortest digits that read back as the same number, as in JavaScript.
    let shortest = Decimal::read(&format!("{double:e}"))?;
    if !double.is_finite() || shortest != decimal {
        return None;
    }
    let Decimal { negative, digits, exponent } = decimal;
    if digits.is_empty() {
        return Some(String::from("0"));
    }
    let count = i64::try_from(digits.len()).ok()?;
    // Where the point stands, in digits from the first one.
    let point = count + exponent;
    let zeros = |count: i64| "0".repeat(usize::try_from(count).unwrap_or_default());
    let cut = |at: i64| digits.split_at(usize::try_from(at).unwrap_or_default());
    let plain = match point {
        _ if (count..=21).contains(&point) => format!("{digits}{}", zeros(point - count)),
        1..=21 => {
            let (whole, fraction) = cut(point);
            format!("{whole}.{fraction}")
        }
        -5..=0 => format!("0.{}{digits}", zeros(-point)),
        _ => {
            let (first, others) = cut(1);
            let dot = if others.is_empty() { "" } else { "." };
            format!("{first}{dot}{others}e{:+}", point - 1)
        }
    };
    Some(if negative { format!("-{plain}") } else { plain })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rewritten(text: &str) -> String {
        let mut out = b"x".to_vec();
        out.extend_from_slice(text.as_bytes());
        rewrite(&mut out, 1);
        String::from_utf8(out[1..].to_vec()).unwrap()
    }

    /// Each expected value is what node gives for `JSON.stringify(JSON.parse(text))`.
    #[test]
    fn what_javascript_has_is_in_its_own_form() {
        let cases = [
            ("1.0", "1"),
            ("12.50", "12.5"),
            ("-0", "0"),
            ("-0.0", "0"),
            ("1E+3", "1000"),
            ("1e21", "1e+21"),
            ("100000000000000000000", "100000000000000000000"),
            ("1e-7", "1e-7"),
            ("0.000001", "0.000001"),
            ("1.5e-7", "1.5e-7"),
            ("0.10", "0.1"),
            ("-1234.5600", "-1234.56"),
            ("9007199254740992", "9007199254740992"),
            (r#"{"a":[1.0,"1.0"],"b":true,"1.0":null}"#, r#"{"a":[1,"1.0"],"b":true,"1.0":null}"#),
            (r#""a\/b\u00e9\u4f60 \u001F\"\\""#, "\"a/bé你 \\u001f\\\"\\\\\""),
        ];
        for (text, expected) in cases {
            assert_eq!(rewritten(text), expected, "case: {text}");
        }
    }

    #[test]
    fn what_javascript_would_round_stays_as_it_is() {
        for text in [
            "7654321098765432123",
            "9007199254740993",
            "0.1234567890123456789",
            "1e400",
            "-1e400",
            "1e-400",
            "12345678901234567890.1234567890",
            r#""\ud800""#,
        ] {
            assert_eq!(rewritten(text), text);
        }
    }

    proptest! {
        #[test]
        fn numbers_mean_the_same(number: f64) {
            prop_assume!(number.is_finite());
            let text = rewritten(&serde_json::to_string(&number).unwrap());
            prop_assert_eq!(text.parse::<f64>().unwrap(), number);
        }

        #[test]
        fn any_json_stays_the_same_value(text: String, number: i64) {
            let value = serde_json::json!({ "a": [text, number], "b": { text: number } });
            let written = rewritten(&serde_json::to_string(&value).unwrap());
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&written).unwrap(), value);
        }
    }
}
