//! Which rows of the table of endpoints are those of before under another name. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::settings::Endpoint;
use crate::preflight::endpoint_rows::Row;

/// With more endpoints gone at once than this, none is taken for one with another name: each is held against
/// each that is new.
const RENAMED_MAX: usize = 100;

/// Which of the endpoints that are gone came back under which other name: they are alike in all but
/// that, and so is no second one on either side.
pub(super) fn renamed<R>(
    gone: &[Arc<Endpoint>],
    wanted: &BTreeMap<Arc<str>, (Endpoint, Row)>,
    known: &BTreeMap<Arc<str>, R>,
) -> Vec<(Arc<str>, Arc<str>)> {
    if gone.len() > RENAMED_MAX {
        return Vec::new();
    }
    let new: Vec<&Endpoint> = wanted
        .iter()
        .filter(|(name, _)| !known.contains_key(*name))
        .map(|(_, (endpoint, _))| endpoint)
        .collect();
    let is_alike = |one: &Endpoint, other: &Endpoint| {
        let named = Endpoint { name: Arc::clone(&one.name), ..other.clone() };
        one.unusable.is_none() && *one == named
    };
    let mut pairs = Vec::new();
    for before in gone {
        let mut after = new.iter().filter(|after| is_alike(before, after));
        let (Some(only), None) = (after.next(), after.next()) else { continue };
        if gone.iter().filter(|other| is_alike(other, only)).count() == 1 {
            pairs.push((Arc::clone(&before.name), Arc::clone(&only.name)));
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn endpoint(name: &str, url: &str) -> Endpoint {
        let text = format!(
            "postgres.url = 'postgres://u@h/d'\n[[event]]\ntype = 'a'\ntable = 'public.t'\n\
             [[endpoint]]\nname = '{name}'\nurl = 'https://{url}/'"
        );
        config::parse(&text, "walhook.toml", &|_| None).unwrap().endpoints.remove(0)
    }

    #[test]
    fn only_what_is_alike_and_has_no_double_is_the_same_endpoint() {
        let cases = [
            ("another name", "a h", "b h", "a>b"),
            ("another name and address", "a h", "b i", ""),
            ("one of two that are alike", "a h", "b h,c h", ""),
            ("two that were alike", "a h,b h", "c h", ""),
            ("two at once", "a h,b i", "c i,d h", "a>d,b>c"),
            ("one is new, and one goes", "a h", "", ""),
        ];
        for (case, gone, new, expected) in cases {
            let read = |text: &str| -> Vec<Endpoint> {
                let words = text.split(',').filter_map(|each| each.split_once(' '));
                words.map(|(name, url)| endpoint(name, url)).collect()
            };
            let gone: Vec<Arc<Endpoint>> = read(gone).into_iter().map(Arc::new).collect();
            let kept = endpoint("kept", "h");
            let known = BTreeMap::from([(Arc::clone(&kept.name), Row::new())]);
            let mut wanted: BTreeMap<Arc<str>, (Endpoint, Row)> =
                read(new).into_iter().map(|e| (Arc::clone(&e.name), (e, Row::new()))).collect();
            wanted.insert(Arc::clone(&kept.name), (kept, Row::new()));
            let pairs = renamed(&gone, &wanted, &known);
            let pairs: Vec<String> =
                pairs.iter().map(|(from, to)| format!("{from}>{to}")).collect();
            assert_eq!(pairs.join(","), expected, "case: {case}");
        }
    }
}
