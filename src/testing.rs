//! The one door for what stands outside: tests, benchmarks and fuzz targets.
//!
//! The rooms are the crate's own, so that the compiler sees what nobody uses. What a test of `tests/`, a
//! benchmark or a fuzz target calls is named here, item by item, in the order of the rooms; the command line
//! is the only other way in. A line goes with the last use of its item.

pub mod api {
    pub mod openapi {
        pub use crate::api::openapi::document_text;
    }
}

pub mod backfill {
    pub mod wal_end {
        pub use crate::backfill::wal_end::position;
    }
}

pub mod cli {
    pub mod import {
        pub mod yaml {
            pub use crate::cli::import::yaml::documents;
        }
    }
}

pub mod clock {
    pub use crate::clock::host_now;
}

pub mod config {
    pub use crate::config::parse;
    pub mod configuration {
        pub use crate::config::configuration::Settings;
    }
    pub mod endpoint_connection {
        pub use crate::config::sections::endpoint_connection::ConnectionLink;
    }
    pub mod secret {
        pub use crate::config::secret::Secret;
    }
    pub mod settings {
        pub use crate::config::settings::AddressPolicy;
        pub use crate::config::settings::AnswerRule;
        pub use crate::config::settings::Auth;
        pub use crate::config::settings::BatchSettings;
        pub use crate::config::settings::BodyRule;
        pub use crate::config::settings::Channel;
        pub use crate::config::settings::Endpoint;
        pub use crate::config::settings::KeyOrdering;
        pub use crate::config::settings::OAuth2;
        pub use crate::config::settings::Operations;
        pub use crate::config::settings::Overflow;
        pub use crate::config::settings::PRESETS;
        pub use crate::config::settings::ParkingSettings;
        pub use crate::config::settings::PostgresSettings;
        pub use crate::config::settings::RequestTemplate;
        pub use crate::config::settings::RetryDelays;
        pub use crate::config::settings::RetrySettings;
        pub use crate::config::settings::ServerSettings;
        pub use crate::config::settings::Signing;
        pub use crate::config::settings::SourcePlaces;
        pub use crate::config::settings::StandardKey;
        pub use crate::config::settings::TlsMode;
        pub use crate::config::settings::TlsSettings;
        pub use crate::config::settings::WecomApp;
    }
}

pub mod delivery {
    pub mod http {
        pub use crate::delivery::http::EndpointClient;
    }
    pub mod network {
        pub use crate::delivery::connection::network::DeliveryNetwork;
    }
    pub mod sign {
        pub use crate::delivery::request::sign::RequestSigner;
    }
    pub mod sockets {
        pub use crate::delivery::connection::sockets::Sockets;
        pub use crate::delivery::connection::sockets::raise_limit;
    }
}

pub mod event {
    pub mod datum {
        pub use crate::event::datum::epoch_seconds;
        pub use crate::event::datum::timestamp;
        pub use crate::event::datum::write_json;
    }
    pub mod plan {
        pub use crate::event::plan::RoutedEvent;
    }
    pub mod route {
        pub use crate::event::route::EventRouter;
    }
}

pub mod failpoint {
    pub use crate::failpoint::CALLBACK_KEPT;
    pub use crate::failpoint::POINTS;
}

pub mod flow {
    pub mod backlog {
        pub use crate::flow::backlog::BacklogPosition;
        pub use crate::flow::backlog::RefilledRow;
    }
    pub mod body {
        pub use crate::flow::body::BodyPart;
        pub use crate::flow::body::EventBody;
    }
    pub mod budget {
        pub use crate::flow::budget::MemoryBudget;
    }
    pub mod change {
        pub use crate::flow::change::CapturedItem;
        pub use crate::flow::change::ChangeOp;
        pub use crate::flow::change::ColumnField;
        pub use crate::flow::change::ColumnValue;
        pub use crate::flow::change::CommittedChange;
        pub use crate::flow::change::OldRow;
        pub use crate::flow::change::RowTuple;
    }
    pub mod event {
        pub use crate::flow::event::Event;
        pub use crate::flow::event::EventExpiry;
        pub use crate::flow::event::EventFacts;
        pub use crate::flow::event::EventId;
        pub use crate::flow::event::IdOrigin;
    }
    pub mod headers {
        pub use crate::flow::headers::HeaderLines;
    }
    pub mod key {
        pub use crate::flow::key::EventKeys;
        pub use crate::flow::key::KeyHash;
    }
    pub mod lease {
        pub use crate::flow::lease::Lease;
        pub use crate::flow::lease::LeaseId;
    }
    pub mod lsn {
        pub use crate::flow::lsn::Lsn;
        pub use crate::flow::lsn::Position;
    }
    pub mod partition {
        pub use crate::flow::partition::PartitionNumber;
    }
    pub mod park_reason {
        pub use crate::flow::park_reason::ParkReason;
    }
    pub mod relation {
        pub use crate::flow::relation::Column;
        pub use crate::flow::relation::Relation;
        pub use crate::flow::relation::ReplicaIdentity;
        pub use crate::flow::relation::SqlType;
        pub use crate::flow::relation::TableName;
    }
    pub mod report_queue {
        pub use crate::flow::report_queue::report_queue;
    }
    pub mod settlement {
        pub use crate::flow::settlement::DeliveryOutcome;
        pub use crate::flow::settlement::EndpointIndex;
    }
    pub mod time {
        pub use crate::flow::time::Timestamp;
    }
    pub mod verdict {
        pub use crate::flow::verdict::AttemptFailure;
        pub use crate::flow::verdict::AttemptReach;
        pub use crate::flow::verdict::AttemptVerdict;
        pub use crate::flow::verdict::FailureClass;
        pub use crate::flow::verdict::HttpExchange;
    }
    pub mod watermark {
        pub use crate::flow::watermark::Watermark;
    }
    pub mod write_back {
        pub use crate::flow::write_back::TargetRow;
    }
}

pub mod inbound {
    pub mod wecom {
        pub mod cipher {
            pub use crate::inbound::wecom::cipher::CallbackKey;
        }
        pub mod message {
            pub use crate::inbound::wecom::message::row;
        }
        pub mod signature {
            pub use crate::inbound::wecom::signature::signature;
        }
        pub mod xml {
            pub use crate::inbound::wecom::xml::members;
        }
    }
}

pub mod lane {
    pub use crate::lane::open;
    pub mod core {
        pub use crate::lane::core::LaneNow;
        pub use crate::lane::core::LaneState;
        pub use crate::lane::core::counts::DeliveryPlace;
    }
    pub mod services {
        pub use crate::lane::services::LaneServices;
    }
    pub mod settings {
        pub use crate::lane::settings::LaneSettings;
    }
}

pub mod listen_socket {
    pub use crate::listen_socket::open;
}

pub mod replication {
    pub mod assemble {
        pub use crate::replication::assemble::ChangeAssembler;
    }
    pub mod catalog {
        pub use crate::replication::catalog::CheckReport;
        pub use crate::replication::catalog::FindingLevel;
        pub use crate::replication::catalog::inspect;
        pub use crate::replication::catalog::prepare;
        pub mod wanted {
            pub use crate::replication::catalog::wanted::WantedObjects;
            pub use crate::replication::catalog::wanted::WantedTable;
        }
    }
    pub mod diagnostic {
        pub use crate::replication::diagnostic::SetupDiagnostic;
    }
    pub mod error {
        pub use crate::replication::error::SourceError;
    }
    pub mod pgoutput {
        pub use crate::replication::pgoutput::PgOutput;
        pub use crate::replication::pgoutput::decode;
    }
    pub mod types {
        pub use crate::replication::types::answer;
        pub use crate::replication::types::builtin;
        pub use crate::replication::types::primary_key;
        pub use crate::replication::types::resolve;
    }
    pub mod wire {
        pub mod command {
            pub use crate::replication::wire::command::ReplicationConnection;
            pub use crate::replication::wire::command::StreamingStart;
            pub use crate::replication::wire::command::connect;
            pub use crate::replication::wire::command::slot_commands::NewSlot;
            pub use crate::replication::wire::command::slot_commands::SlotCreation;
        }
        pub mod feedback {
            pub use crate::replication::wire::feedback::SlotRelease;
            pub use crate::replication::wire::feedback::feedback;
        }
        pub mod frame {
            pub use crate::replication::wire::frame::FrameReader;
            pub use crate::replication::wire::frame::WireFrame;
        }
    }
}

#[cfg(feature = "demo")]
pub mod sandbox {
    pub mod broker {
        pub use crate::sandbox::broker::SandboxBroker;
    }
    pub mod cluster {
        pub use crate::sandbox::cluster::ClusterOptions;
        pub use crate::sandbox::cluster::SandboxCluster;
    }
    pub mod error {
        pub use crate::sandbox::error::SandboxError;
    }
    pub mod find {
        pub use crate::sandbox::find::find;
        pub use crate::sandbox::find::find_version;
    }
    pub mod installation {
        pub use crate::sandbox::installation::PostgresInstallation;
    }
}

pub mod store {
    pub use crate::store::SqlSession;
    pub use crate::store::connect;
    pub mod backlog {
        pub use crate::store::backlog::BacklogDelivery;
        pub use crate::store::backlog::PageLimits;
        pub use crate::store::backlog::ParkedDelivery;
        pub use crate::store::backlog::ReparkedDelivery;
        pub use crate::store::backlog::WaitingRow;
        pub use crate::store::backlog::backlog_sizes::sizes;
        pub use crate::store::backlog::page;
    }
    pub mod books {
        pub use crate::store::books::BookCount;
        pub use crate::store::books::BookEntry;
        pub use crate::store::books::load;
    }
    pub mod dead_letters {
        pub use crate::store::dead_letters::DeadLetter;
        pub use crate::store::dead_letters::DeadLetterId;
        pub use crate::store::dead_letters::DeathClass;
        pub use crate::store::dead_letters::Share;
        pub use crate::store::dead_letters::count;
        pub use crate::store::dead_letters::discard;
        pub use crate::store::dead_letters::list;
        pub use crate::store::dead_letters::purge;
        pub use crate::store::dead_letters::selection::LetterFilter;
        pub use crate::store::dead_letters::selection::LetterState;
        pub use crate::store::dead_letters::sizes;
        pub use crate::store::dead_letters::survey;
        pub use crate::store::dead_letters::whole;
    }
    pub mod error {
        pub use crate::store::error::StoreError;
    }
    pub mod flush {
        pub use crate::store::flush::JoinedFlush;
        pub use crate::store::flush::PartitionFlush;
        pub use crate::store::flush::StateFlush;
        pub use crate::store::flush::commit;
        pub use crate::store::flush::commit_joined;
    }
    pub mod migrate {
        pub use crate::store::migrate::apply;
        pub use crate::store::migrate::lacking;
        pub use crate::store::migrate::migrate;
        pub use crate::store::migrate::versions::MIGRATIONS;
        pub use crate::store::migrate::versions::Migration;
        pub use crate::store::migrate::versions::tables;
    }
    pub mod ownership {
        pub use crate::store::ownership::StateOwnership;
    }
    pub mod partition_leases {
        pub use crate::store::partition_leases::prolong;
        pub use crate::store::partition_leases::take;
    }
    pub mod partitions {
        pub use crate::store::partitions::drop_old;
        pub use crate::store::partitions::ensure_ahead;
    }
    pub mod progress {
        pub use crate::store::progress::ServerLineage;
        pub use crate::store::progress::lineage::begin_anew;
        pub use crate::store::progress::lineage::set_lineage;
        pub use crate::store::progress::load;
        pub use crate::store::progress::load_endpoint_watermarks;
        pub use crate::store::progress::load_settled_ahead;
        pub use crate::store::progress::load_settled_ahead_of;
        pub use crate::store::progress::takeover::take;
        pub use crate::store::progress::takeover::take_partition;
    }
    pub mod push_log {
        pub use crate::store::push_log::AttemptOutcome;
        pub use crate::store::push_log::LoggedAttempt;
        pub use crate::store::push_log::LoggedBatch;
        pub use crate::store::push_log::filter::PushLogFilter;
        pub use crate::store::push_log::filter::list;
    }
    pub mod push_totals {
        pub use crate::store::push_totals::PushTotals;
    }
    pub mod resend {
        pub use crate::store::resend::ClaimPortion;
        pub use crate::store::resend::ClaimedLetter;
        pub use crate::store::resend::EndedLetter;
        pub use crate::store::resend::ResentLetter;
        pub use crate::store::resend::claim;
        pub use crate::store::resend::request;
        pub use crate::store::resend::waiting;
    }
    pub mod state_error {
        pub use crate::store::state_error::StateError;
    }
    pub mod stored_event {
        pub use crate::store::stored_event::ReplayRow;
        pub use crate::store::stored_event::StoredHistory;
    }
    pub mod transport {
        pub use crate::store::session::transport::ServerTransport;
    }
    pub mod write_backs {
        pub use crate::store::write_backs::OutcomeTally;
    }
}
