//! Deliveries on their way into the backlog, by COPY: a third of what rows cost that are INSERTed.

use std::pin::Pin;
use std::pin::pin;
use std::sync::LazyLock;

use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::ToSql;
use tokio_postgres::types::Type;

use crate::store::backlog::OWN_COLUMNS;
use crate::store::backlog::ParkedDelivery;
use crate::store::body_codec;
use crate::store::ownership::StateOwnership;
use crate::store::session::prepared_statements::StateTransaction;
use crate::store::sql::clean;
use crate::store::sql::int;
use crate::store::state_error::StateError;
use crate::store::stored_event;

static COPY: LazyLock<String> = LazyLock::new(|| {
    let (event, rest) = (stored_event::COLUMNS, OWN_COLUMNS);
    format!("COPY walhook.backlog (slot, {event}, {rest}) FROM STDIN (FORMAT binary)")
});

const TYPES: [Type; 27] = [
    Type::TEXT,
    Type::TEXT,
    Type::PG_LSN,
    Type::INT8,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
    Type::INT8,
    Type::INT8,
    Type::TIMESTAMPTZ,
    Type::TIMESTAMPTZ,
    Type::TIMESTAMPTZ,
    Type::JSON,
    Type::BYTEA,
    Type::TEXT,
    Type::INT4,
    Type::TIMESTAMPTZ,
    Type::TIMESTAMPTZ,
    Type::TEXT,
    Type::TIMESTAMPTZ,
    Type::TIMESTAMPTZ,
    Type::INT4,
    Type::TEXT,
    Type::TEXT,
    Type::BOOL,
    Type::INT8,
];

/// Writes all rows, or none: one that is there already is an error of the server.
pub(super) async fn copy(
    tx: &StateTransaction<'_>,
    ownership: &StateOwnership,
    parked: &[ParkedDelivery],
) -> Result<(), StateError> {
    let sink = tx.copy_in(&COPY).await?;
    let mut writer = pin!(BinaryCopyInWriter::new(sink, &TYPES));
    for row in parked {
        write(writer.as_mut(), ownership, row).await?;
    }
    writer.finish().await?;
    Ok(())
}

async fn write(
    writer: Pin<&mut BinaryCopyInWriter>,
    ownership: &StateOwnership,
    row: &ParkedDelivery,
) -> Result<(), StateError> {
    let unicode = ownership.unicode;
    let ParkedDelivery { event, history, .. } = row;
    let too_large = || StateError::BodyTooLarge {
        event: event.id.to_string(),
        bytes: body_codec::encoded_len(&event.body),
    };
    let body = body_codec::encode(&event.body).ok_or_else(too_large)?;
    let failure = history.failure.as_ref();
    let values: [&(dyn ToSql + Sync); TYPES.len()] = [
        &ownership.slot.as_ref(),
        &event.id.to_string(),
        &event.position.commit,
        &i64::from(event.position.ordinal),
        &event.event_type.as_ref(),
        &event.table.schema,
        &event.table.name,
        &row.row_key.as_deref().map(|key| clean(key, unicode)),
        &stored_event::stored_key(event.keys, 0),
        &stored_event::stored_key(event.keys, 1),
        &event.committed,
        &event.expiry.map(|expiry| expiry.born),
        &event.expiry.map(stored_event::expires_at),
        &stored_event::facts_json(&event.facts, unicode),
        &body,
        &row.endpoint.as_ref(),
        &int(history.attempts),
        &row.next_attempt,
        &row.parked_at,
        &row.reason.as_str(),
        &history.first_attempt,
        &history.last_attempt,
        &history.status.map(i32::from),
        &failure.map(|failure| failure.class.as_str()),
        &failure.map(|failure| clean(&failure.detail, unicode)),
        &row.replay.is_replay(),
        &row.replay.dead_letter(),
    ];
    writer.write(&values).await?;
    Ok(())
}
