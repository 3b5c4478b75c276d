//! Any bytes as a WeCom ciphertext, as the plaintext of one, and as the XML within: refused or read, never a
//! panic, and what was read becomes a row.
//!
//! `cargo +nightly fuzz run callback -- -max_total_time=60`; it starts from the seeds in `corpus/callback`.
#![no_main]

use std::collections::BTreeMap;

use aes::Aes256;
use aes::cipher::BlockModeEncrypt;
use aes::cipher::KeyIvInit;
use aes::cipher::block_padding::NoPadding;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use libfuzzer_sys::fuzz_target;
use walhook::testing::inbound::wecom::cipher::CallbackKey;
use walhook::testing::inbound::wecom::message;
use walhook::testing::inbound::wecom::xml;

/// 32 bytes of zero.
const KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
const CORP: &str = "ww0123456789abcdef";

/// What WeCom does, but for the padding: it may be any bytes.
fn sealed(plain: &[u8]) -> String {
    let mut plain = plain.to_vec();
    plain.resize(plain.len().next_multiple_of(16), 0);
    let length = plain.len();
    let cipher = cbc::Encryptor::<Aes256>::new(&[0; 32].into(), &[0; 16].into());
    let sealed = cipher.encrypt_padded::<NoPadding>(&mut plain, length).expect("whole blocks");
    BASE64_STANDARD.encode(sealed)
}

fn read(text: &str) {
    let Ok(fields) = xml::members(text) else { return };
    let row = message::row("api", fields, &BTreeMap::new(), None);
    assert!(row.dedupe_key.starts_with("api/"));
}

fuzz_target!(|data: &[u8]| {
    let key = CallbackKey::parse(KEY).expect("a key");
    if let Ok(message) = key.decrypt(&sealed(data), CORP) {
        read(&String::from_utf8_lossy(&message));
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _opened = key.decrypt(text, CORP);
    read(text);
});
