//! Any bytes as a WeCom ciphertext, and as the XML within: refused or read, never a panic.
//!
//! `cargo +nightly fuzz run callback -- -max_total_time=60`
#![no_main]

use libfuzzer_sys::fuzz_target;
use walhook::inbound::wecom::cipher::CallbackKey;
use walhook::inbound::wecom::xml;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let key = CallbackKey::parse("zYm4VO3jFrAqnhktBa9Kvy25k1sdreiZCuQ6ynGjPPf").expect("a key");
    let _opened = key.decrypt(text, "ww0123456789abcdef");
    let _read = xml::members(text);
});
