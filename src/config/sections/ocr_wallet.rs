//! `ocr-wallet`: what a configuration without any `[[event]]` means.

use std::sync::Arc;
use std::time::Duration;

use crate::config::settings::EventFilter;
use crate::config::settings::EventRule;
use crate::config::settings::ExpiryRule;
use crate::config::settings::JsonForm;
use crate::config::settings::Operations;
use crate::config::settings::PayloadSettings;
use crate::config::settings::SourcePlaces;
use crate::config::settings::TraceSource;
use crate::config::settings::ocr_wallet::AGE_COLUMN;
use crate::flow::relation::TableName;

const DATA_EXPIRY: Duration = Duration::from_secs(300);

/// New rows of `ocr_wallet_info` whose wallet code was recognised, while they are fresh.
pub(crate) fn event(data_expiry: Option<Duration>) -> EventRule {
    EventRule {
        event_type: Arc::from("ocr_wallet_data"),
        table: TableName::new("public", "ocr_wallet_info"),
        on: Operations { insert: true, ..Operations::default() },
        backfill: false,
        filter: Some(recognised()),
        expiry: Some(ExpiryRule {
            column: Some(AGE_COLUMN.to_owned()),
            max_age: data_expiry.unwrap_or(DATA_EXPIRY),
        }),
        order_by: Vec::new(),
        payload: PayloadSettings::OcrWallet,
        write_back: None,
        dedupe: None,
        json: JsonForm::Stored,
        trace: TraceSource::default(),
        places: SourcePlaces::default(),
    }
}

/// A row counts as recognised when its wallet code is neither null nor blank.
pub(crate) fn recognised() -> EventFilter {
    EventFilter::NotBlank { column: "wallet_code".to_owned() }
}
