//! Hexadecimal digits: of bytes, as bytes, and PostgreSQL's text of a bytea as base64.

/// Appends the base64 (RFC 4648, section 4) of these digits, three bytes at a time; `None` if one of
/// them is none, or one is left over.
pub(crate) fn hex_to_base64(out: &mut Vec<u8>, hex: &[u8]) -> Option<()> {
    let (bytes, []) = hex.as_chunks::<2>() else { return None };
    for group in bytes.chunks(3) {
        let mut bits = 0;
        for (byte, place) in group.iter().zip([16, 8, 0]) {
            let [high, low] = *byte;
            bits |= (digit(high)? << 4 | digit(low)?) << place;
        }
        let sextet = |place: u32| base64_digit(bits >> place);
        let (third, fourth) = match group.len() {
            1 => (b'=', b'='),
            2 => (sextet(6), b'='),
            _ => (sextet(6), sextet(0)),
        };
        out.extend_from_slice(&[sextet(18), sextet(12), third, fourth]);
    }
    Some(())
}

/// Two digits for each byte, in lower case.
pub(crate) fn hex_of(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 0xF]);
    digits.filter_map(|nibble| char::from_digit(u32::from(nibble), 16)).collect()
}

/// The bytes of these digits; `None` if one of them is none, or there are not as many as it takes.
pub(crate) fn bytes_of<const BYTES: usize>(digits: &[u8]) -> Option<[u8; BYTES]> {
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    let mut bytes = [0; BYTES];
    if pairs.len() != BYTES {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = u8::try_from(digit(*high)? << 4 | digit(*low)?).ok()?;
    }
    Some(bytes)
}

/// Whether these are hexadecimal digits of whole bytes.
pub(crate) fn is_hex(text: &[u8]) -> bool {
    text.len().is_multiple_of(2) && text.iter().all(u8::is_ascii_hexdigit)
}

/// The digit for the lowest six bits.
fn base64_digit(bits: u32) -> u8 {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    DIGITS.get((bits & 0x3F) as usize).copied().unwrap_or(b'=')
}

fn digit(digit: u8) -> Option<u32> {
    char::from(digit).to_digit(16)
}
