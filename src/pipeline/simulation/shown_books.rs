//! The books as the metrics of a run show them.

use crate::flow::relation::TableName;
use crate::pipeline::simulation::scenario::table_name;
use crate::pipeline::simulation::world::ShownRun;
use crate::pipeline::simulation::world::SimulatedWorld;
use crate::store::books::BookCount;
use crate::store::books::BookEntry;

/// The books of one endpoint and table as the metrics show them, and what they show as pending.
fn shown_books(
    world: &SimulatedWorld,
    shown: &ShownRun,
    (endpoint, table): (&str, &TableName),
) -> Option<(BookCount, i64)> {
    let is_named = |number: &usize| *world.scenario.endpoints[*number].name == *endpoint;
    world.state.present.iter().find(|number| is_named(number))?;
    let shown = shown.metrics.balance(endpoint, table);
    let books = BookCount {
        captured: shown.captured.get(),
        delivered: shown.delivered.get(),
        filtered: shown.filtered.get(),
        expired: shown.expired.get(),
        dead: shown.dead.get(),
    };
    Some((books, shown.pending.get()))
}

/// Whether the metrics balance, whatever is under way.
pub(super) fn is_shown_balanced(world: &SimulatedWorld) -> Result<(), String> {
    for (shown, endpoint) in world
        .all_shown()
        .flat_map(|shown| world.scenario.endpoints.iter().map(move |one| (shown, one)))
    {
        shown.metrics.look();
        for table in 0..2 {
            let table = TableName::new("public", table_name(table));
            match shown_books(world, shown, (&endpoint.name, &table)) {
                Some((books, pending)) if books.pending() != pending || pending < 0 => {
                    let name = &endpoint.name;
                    return Err(format!(
                        "metrics of {name}, {table}: {books:?}, pending {pending}"
                    ));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// Whether they show what the state holds, once nothing is under way.
pub(super) fn is_shown(world: &SimulatedWorld) -> Result<(), String> {
    is_shown_balanced(world)?;
    let Some(run) = world.all_shown().next() else { return Ok(()) };
    for BookEntry { endpoint, table, count } in world.state.balance() {
        let shown = shown_books(world, run, (&endpoint, &table)).map(|(books, _)| books);
        if shown.is_some_and(|shown| shown != count) {
            return Err(format!("metrics of {endpoint}, {table}: {shown:?}, state: {count:?}"));
        }
    }
    Ok(())
}
