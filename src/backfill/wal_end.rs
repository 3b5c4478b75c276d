//! Asks a server for the end of its WAL; on a standby, of what was replayed.

use tokio_postgres::Client;

use crate::backfill::query;
use crate::backfill::read_error::ReadError;
use crate::backfill::text_answers::lsn;
use crate::backfill::text_answers::one;
use crate::backfill::text_answers::text;
use crate::flow::lsn::Lsn;

/// Where the WAL of a server ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct WalEnd {
    /// The end of its last record; on a standby of the last that was replayed.
    pub lsn: Lsn,
    pub is_standby: bool,
}

impl WalEnd {
    /// Behind all that the snapshot of a transaction sees in which rows were read; of a server that still is what
    /// it was.
    pub(super) async fn checked_again(
        self,
        client: &Client,
        is_on_standby: bool,
    ) -> Result<Self, ReadError> {
        // On a standby the last record that the snapshot sees may have been in hand still.
        let end = if is_on_standby { position(client).await? } else { self };
        if self.is_standby != is_on_standby || end.is_standby != is_on_standby {
            return Err(ReadError::Promoted);
        }
        Ok(end)
    }
}

/// Asks where the WAL ends.
///
/// # Errors
/// That the server could not be asked.
pub async fn position(client: &Client) -> Result<WalEnd, ReadError> {
    let row = one(client, query::POSITION).await?;
    let number = |column| -> Result<u64, ReadError> {
        let number = text(&row, column)?.and_then(|text| text.parse().ok());
        number.ok_or(ReadError::Answer { what: "no size of the WAL's pages" })
    };
    let (page, segment) = (number(1)?, number(2)?);
    Ok(WalEnd {
        lsn: record_end(lsn(&row)?, page, segment),
        is_standby: text(&row, 3)? == Some("t"),
    })
}

/// Headers of a page, and of the first one of a segment.
const PAGE_HEADER: u64 = 24;
const SEGMENT_HEADER: u64 = 40;

/// The end of the last record, from the place where the next one would be. At the end of a page the two
/// differ by its header, and the stream of an idle server never comes to the latter.
fn record_end(insert: Lsn, page: u64, segment: u64) -> Lsn {
    let (Some(in_page), Some(in_segment)) =
        (insert.raw().checked_rem(page), insert.raw().checked_rem(segment))
    else {
        return insert;
    };
    let header = if in_segment == in_page { SEGMENT_HEADER } else { PAGE_HEADER };
    if in_page == header { Lsn::from_raw(insert.raw() - header) } else { insert }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_record_is_not_behind_a_header() {
        let (page, segment) = (8192, 16 << 20);
        let cases = [
            (8192 + 24, 8192),
            (8192 + 32, 8192 + 32),
            (8192 + 40, 8192 + 40),
            (8192 + 8184, 8192 + 8184),
            ((16 << 20) + 40, 16 << 20),
            ((16 << 20) + 24, (16 << 20) + 24),
        ];
        for (insert, end) in cases {
            let found = record_end(Lsn::from_raw(insert), page, segment);
            assert_eq!(found, Lsn::from_raw(end), "case: {insert}");
        }
    }
}
