//! `api::page`, by cases.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;

use flate2::read::GzDecoder;
use ring::digest;

use super::*;

fn ours() -> impl Iterator<Item = &'static PageFile> {
    let is_vendored =
        |file: &&PageFile| ["preact.js", "uplot.js", "uplot.css"].contains(&file.name);
    FILES.iter().filter(move |file| !is_vendored(file))
}

/// What stands in quotes behind each `before`.
fn quoted<'t>(text: &'t str, before: &'t str) -> impl Iterator<Item = String> {
    text.match_indices(before).filter_map(move |(at, found)| {
        let rest = text.get(at + found.len()..)?;
        let is_name = text.get(..at)?.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let literal = rest.strip_prefix('"').filter(|_| !is_name)?;
        let mut end = 0;
        while !literal.get(end..)?.starts_with('"') {
            end += if literal.get(end..)?.starts_with('\\') { 2 } else { 1 };
            while !literal.is_char_boundary(end) {
                end += 1;
            }
        }
        serde_json::from_str(&format!("\"{}\"", literal.get(..end)?)).ok()
    })
}

#[test]
fn files_of_others_are_as_their_packages_have_them() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("ui/vendor");
    let sums = std::fs::read_to_string(folder.join("SHA256SUMS")).unwrap();
    let known: BTreeSet<&str> =
        sums.lines().filter_map(|line| line.split_once("  ")).map(|(_, name)| name).collect();
    for line in sums.lines() {
        let (sum, name) = line.split_once("  ").unwrap();
        let text = std::fs::read(folder.join(name)).unwrap();
        let found = digest::digest(&digest::SHA256, &text);
        assert_eq!(hex_of(found.as_ref()), sum, "{name}");
    }
    for entry in folder.read_dir().unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        let is_about = ["README.md", "SHA256SUMS"].contains(&name.as_str());
        assert!(is_about || known.contains(name.as_str()), "{name} has no checksum");
    }
}

#[test]
fn the_whole_page_is_small_as_it_is_sent() {
    let mut sum = 0;
    for (file, sent) in FILES.iter().zip(SENT.iter()) {
        let packed = sent.compressed.as_ref().unwrap();
        sum += packed.len();
        let mut text = String::new();
        GzDecoder::new(&packed[..]).read_to_string(&mut text).unwrap();
        assert_eq!(text, file.text, "{}", file.name);
    }
    assert!(sum > 10_000 && sum <= 150 * 1024, "{sum} bytes");
}

#[test]
fn who_takes_gzip_gets_it_under_a_tag_of_its_own() {
    let cases = [
        ("gzip, deflate, br", true),
        ("br;q=1.0, GZIP ; q=0.5", true),
        ("gzip;q=0", false),
        ("gzip;q=0.000", false),
        ("deflate, xgzip", false),
        ("", false),
    ];
    for (accepted, expected) in cases {
        let value = HeaderValue::from_str(accepted).unwrap();
        let asked = HeaderMap::from_iter([(header::ACCEPT_ENCODING, value)]);
        assert_eq!(takes_gzip(&asked), expected, "case: {accepted}");
        let answer = serve("app.js", &asked).expect("there is one");
        assert_eq!(answer.headers()[header::CONTENT_SECURITY_POLICY], POLICY);
        assert!(POLICY.starts_with("default-src 'self';") && !POLICY.contains("unsafe"));
        let coding = answer.headers().get(header::CONTENT_ENCODING);
        assert_eq!(coding.is_some(), expected, "case: {accepted}");
        let tag = answer.headers()[header::ETAG].to_str().unwrap();
        assert_eq!(tag.ends_with("-gzip\""), expected, "case: {accepted}");
        let known = HeaderMap::from_iter([(header::IF_NONE_MATCH, tag.parse().unwrap())]);
        let again = serve("app.js", &known).expect("there is one").status();
        let status = if expected { StatusCode::OK } else { StatusCode::NOT_MODIFIED };
        assert_eq!(again, status, "without gzip, case: {accepted}");
    }
}

#[test]
fn nothing_is_inline_and_nothing_comes_from_elsewhere() {
    for file in ours() {
        let text = file.text;
        for forbidden in
            ["style=\"", "<style", "<script>", "onclick=\"", "javascript:", "innerHTML"]
        {
            assert!(!text.contains(forbidden), "{}: {forbidden}", file.name);
        }
        for (at, _) in text.match_indices("https://").chain(text.match_indices("http://")) {
            let rest = text.get(at..).unwrap();
            let known = ["https://…", "http://www.w3.org/2000/svg"];
            assert!(known.iter().any(|known| rest.starts_with(known)), "{}: {rest:.40}", file.name);
        }
        for imported in quoted(text, " from ").filter(|name| name.starts_with("./")) {
            let name = imported.trim_start_matches("./");
            assert!(FILES.iter().any(|file| file.name == name), "{}: {name}", file.name);
        }
    }
}

#[test]
fn each_text_is_there_in_chinese() {
    let chinese = FILES.iter().find(|file| file.name == "zh.js").unwrap().text;
    let mut texts = 0;
    for file in ours() {
        for text in quoted(file.text, "t(") {
            texts += 1;
            let key = format!("{}: ", serde_json::Value::from(text.as_str()));
            assert!(chinese.contains(&key), "{}: {text:?} is not in zh.js", file.name);
        }
    }
    assert!(texts > 200, "{texts}");
}

#[test]
fn the_cookie_is_none_without_the_whole_of_it() {
    let with = |cookie: &str| {
        HeaderMap::from_iter([(header::COOKIE, HeaderValue::from_str(cookie).unwrap())])
    };
    let pass = pass("a-token");
    assert!(has_cookie(&with(&format!("a=b; {COOKIE}={pass}")), "a-token"));
    assert!(!has_cookie(&with(&format!("{COOKIE}={pass}")), "another-token"));
    for cookie in [format!("x{COOKIE}={pass}"), format!("{COOKIE}={pass}0"), format!("{COOKIE}=")] {
        assert!(!has_cookie(&with(&cookie), "a-token"), "{cookie}");
    }
}
