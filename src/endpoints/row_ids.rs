//! Which endpoints of a table are those of before under another name, by the column that tells its rows apart.
//!
//! A name is given to another endpoint only when nothing is kept under it any more: so renames have an order, and
//! of endpoints that exchange their names one steps aside first. What was kept of a row that is gone, and whose
//! name another row has by now, steps aside as well: it is not that row's.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::Context;
use tokio_postgres::Client;

use crate::config::configuration::Settings;
use crate::config::sections::endpoints_from::EndpointsFrom;
use crate::endpoints::wanted_rows;
use crate::preflight::endpoint_rows::KeyedRow;
use crate::preflight::endpoint_rows::keyed_rows;
use crate::preflight::inspection::InspectionSessions;
use crate::store::endpoint_rows;
use crate::store::endpoint_rows::NamesByRow;
use crate::store::ownership::StateOwnership;
use crate::store::renames;
use crate::store::renames::EndpointRename;

/// The names of endpoints by the ids of their rows. An id that several rows have tells none of them.
pub(super) fn names<'r>(
    endpoints: impl Iterator<Item = (&'r Arc<str>, Option<Arc<str>>)>,
) -> NamesByRow {
    let (mut names, mut twice) = (NamesByRow::new(), BTreeSet::new());
    for (name, id) in endpoints {
        let Some(id) = id else { continue };
        if names.insert(Arc::clone(&id), Arc::clone(name)).is_some() {
            twice.insert(id);
        }
    }
    names.retain(|id, _| !twice.contains(id));
    names
}

/// From which name to which, one after the other, so that those that were `known` have the names that are
/// `wanted`; `others` are names of endpoints that are no rows, which are left alone. Pure.
pub(super) fn moves(
    known: &NamesByRow,
    wanted: &NamesByRow,
    others: &BTreeSet<Arc<str>>,
) -> Vec<(Arc<str>, Arc<str>)> {
    let is_row = |name: &Arc<str>| !others.contains(name);
    let mut due: BTreeMap<Arc<str>, Arc<str>> = BTreeMap::new();
    for (id, from) in known {
        let Some(to) = wanted.get(id).filter(|to| *to != from) else { continue };
        if is_row(from) && is_row(to) {
            due.insert(Arc::clone(from), Arc::clone(to));
        }
    }
    let targets: BTreeSet<Arc<str>> = due.values().cloned().collect();
    for (id, from) in known {
        if !wanted.contains_key(id) && targets.contains(from) && is_row(from) {
            due.insert(Arc::clone(from), EndpointsFrom::aside(from));
        }
    }
    let mut order = Vec::with_capacity(due.len());
    while let Some(first) = due.keys().next().cloned() {
        let free = due.iter().find(|(_, to)| !due.contains_key(*to));
        let from = free.map_or(first, |(from, _)| Arc::clone(from));
        let Some(to) = due.remove(&from) else { break };
        if due.contains_key(&to) {
            // A circle.
            let waiting = EndpointsFrom::aside(&from);
            order.push((from, Arc::clone(&waiting)));
            due.insert(waiting, to);
        } else {
            order.push((from, to));
        }
    }
    order
}

/// Gives what the state holds of the table's endpoints the names that their rows have by now, before anything
/// moves, and returns the rows; `None` where the file does not say what tells them apart.
///
/// # Errors
/// The table cannot be read, or the state not be written.
pub(crate) async fn take_over(
    settings: &Settings,
    state: &mut Client,
    ownership: &StateOwnership,
    others: &BTreeSet<Arc<str>>,
) -> anyhow::Result<Option<Vec<KeyedRow>>> {
    let from = settings.endpoints_from.as_ref();
    let source = from.and_then(EndpointsFrom::row_source);
    let known = endpoint_rows::load(state, ownership, source.as_deref()).await?;
    let (Some(from), Some(_)) = (from, source) else { return Ok(None) };
    let read = async {
        let mut sessions = InspectionSessions::default();
        let client = &sessions.own_path(&settings.postgres.server).await?.client;
        keyed_rows(client, from, None, None).await
    };
    let found = read.await.context("cannot read the table of [endpoints_from]")?;
    let wanted = wanted_rows::wanted(from, found.clone(), others).endpoints;
    let wanted = names(wanted.iter().map(|(name, (_, row))| (name, from.row_id(row))));
    for (from_name, to) in moves(&known, &wanted, others) {
        let by = format!("table {}", from.table);
        let rename = EndpointRename { from: from_name, to, by, row: None };
        renames::carry_out(state, ownership, &rename).await?;
        let EndpointRename { from, to, .. } = &rename;
        tracing::warn!(%from, endpoint = %to, "endpoint is renamed, and what waits goes along");
    }
    Ok(Some(found))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `1=a 2=b`.
    fn read(text: &str) -> NamesByRow {
        let pairs = text.split_whitespace().filter_map(|pair| pair.split_once('='));
        pairs.map(|(id, name)| (Arc::from(id), Arc::from(name))).collect()
    }

    fn shown(moves: &[(Arc<str>, Arc<str>)]) -> String {
        let name = |name: &Arc<str>| match name.split_once('-') {
            Some((before, _)) => format!("({before})"),
            None => name.to_string(),
        };
        let moves: Vec<String> =
            moves.iter().map(|(from, to)| format!("{}>{}", name(from), name(to))).collect();
        moves.join(" ")
    }

    #[test]
    fn names_go_where_their_rows_are_and_never_onto_one_another() {
        let cases = [
            ("nothing changed", "1=a 2=b", "1=a 2=b", ""),
            ("another name", "1=a 2=b", "1=c 2=b", "a>c"),
            ("one is new", "1=a", "1=a 2=b", ""),
            ("one is gone", "1=a 2=b", "1=a", ""),
            ("a new row has the name of one that is gone", "1=a", "2=a", ""),
            ("a new row has the name that one had", "1=a", "1=b 2=a", "a>b"),
            ("the name of one that is gone", "1=a 2=b", "1=b", "b>(b) a>b"),
            ("one after the other", "1=a 2=b 3=c", "1=b 2=c 3=d", "c>d b>c a>b"),
            ("exchanged", "1=a 2=b", "1=b 2=a", "a>(a) b>a (a)>b"),
            ("in a circle", "1=a 2=b 3=c", "1=b 2=c 3=a", "a>(a) c>a b>c (a)>b"),
            ("the name of another kind of endpoint", "1=a", "1=file", ""),
            ("what is another kind of endpoint by now", "1=file", "1=a", ""),
        ];
        let others = BTreeSet::from([Arc::from("file")]);
        for (case, known, wanted, expected) in cases {
            let moves = moves(&read(known), &read(wanted), &others);
            assert_eq!(shown(&moves), expected, "case: {case}");
        }
    }

    #[test]
    fn after_a_kill_in_a_circle_the_rest_of_it_is_due() {
        let (mut known, wanted) = (read("1=a 2=b 3=c"), read("1=b 2=c 3=a"));
        let mut steps = 0;
        // Killed after each rename, which the state has done as a whole.
        while let Some((from, to)) = moves(&known, &wanted, &BTreeSet::new()).first().cloned() {
            assert!(!known.values().any(|name| *name == to), "{to} is another's");
            let moved = known.values_mut().find(|name| **name == from).unwrap();
            *moved = to;
            steps += 1;
            assert!(steps < 10, "{known:?}");
        }
        assert_eq!((known, steps), (wanted, 4));
    }
}
