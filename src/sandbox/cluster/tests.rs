//! `sandbox::cluster`, by cases.

use super::*;

#[test]
fn parts_of_an_address_are_encoded() {
    assert_eq!(encoded("/tmp/a b"), "%2Ftmp%2Fa%20b");
    assert_eq!(encoded("größe-1_x.y"), "gr%C3%B6%C3%9Fe-1_x.y");
}

#[test]
fn the_shared_memory_is_read_from_the_lock_file() {
    let file = "71\n/tmp/d/data\n1700000000\n20001\n/tmp/d\n127.0.0.1\n  6553799   32782\nready\n";
    assert_eq!(shared_memory(file), Some("32782"));
    assert_eq!(shared_memory("71\n/tmp/d/data\n"), None);
}
