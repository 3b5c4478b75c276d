//! Judges the server: its version, `wal_level`, rights and walsenders. Pure.

use crate::replication::catalog::CheckFinding;
use crate::replication::catalog::CheckReport;
use crate::replication::catalog::facts::CatalogFacts;
use crate::replication::catalog::facts::ServerFacts;
use crate::replication::catalog::wanted::WantedObjects;
use crate::replication::diagnostic::SetupDiagnostic;
use crate::replication::wire::command::FAILOVER_SINCE;
use crate::replication::wire::command::MAJOR_MIN;

pub(super) fn server(facts: &CatalogFacts, wanted: &WantedObjects, report: &mut CheckReport) {
    let server = &facts.server;
    report.add(CheckFinding::ok(format!("PostgreSQL {}", server.version_text)));
    if let Some(service) = server.service {
        let what = format!("it is a server of {}: {}", service.name(), service.notes());
        report.add(CheckFinding::ok(what));
    }
    let major = server.version / 10_000;
    if server.standby && major < 16 {
        report.add(SetupDiagnostic::Standby { version: major });
    }
    if wanted.failover && (server.standby || major < FAILOVER_SINCE) {
        let standby = server.standby && major >= FAILOVER_SINCE;
        report.add(SetupDiagnostic::NoFailover { version: major, standby });
    }
    let effective = server.effective_wal_level.as_deref();
    if server.wal_level == "logical" {
        report.add(CheckFinding::ok("wal_level is logical".to_owned()));
    } else if effective == Some("logical") {
        let what = format!("wal_level is {}, and logical in effect", server.wal_level);
        report.add(CheckFinding::ok(what));
    } else if effective.is_some() && server.wal_level == "replica" {
        let what = "wal_level is replica, which PostgreSQL raises when the slot is made";
        report.add(CheckFinding::ok(what.to_owned()));
    } else {
        let (level, service) = (server.wal_level.clone(), server.service);
        report.add(SetupDiagnostic::WalLevel { level, service });
    }
    if server.may_replicate {
        report.add(CheckFinding::ok(format!("role {} may replicate", server.role)));
    } else {
        let (role, service) = (server.role.clone(), server.service);
        report.add(SetupDiagnostic::NoReplicationRight { role, service });
    }
    // A walhook that is running holds the slot and one walsender itself.
    let running = facts.slot.as_ref().is_some_and(|slot| slot.active_pid.is_some());
    let (used, max) = (server.walsenders, server.walsenders_max);
    if used >= max && !running {
        report.add(SetupDiagnostic::NoFreeWalSender { max: Some(max) });
    } else {
        report.add(CheckFinding::ok(format!("{used} of {max} walsenders are in use")));
    }
}

/// Whether the server's version rules out everything else.
pub(crate) fn too_old(server: &ServerFacts) -> Option<SetupDiagnostic> {
    (server.version / 10_000 < MAJOR_MIN)
        .then(|| SetupDiagnostic::ServerTooOld { version: server.version_text.clone() })
}
