//! Judges the slot: whether it is there, free, and in danger. Pure.

use crate::replication::catalog::CheckFinding;
use crate::replication::catalog::CheckReport;
use crate::replication::catalog::facts::CatalogFacts;
use crate::replication::catalog::wanted::WantedObjects;
use crate::replication::diagnostic::SetupDiagnostic;
use crate::replication::slot::SlotStream;
use crate::store::APPLICATION_NAME;

pub(super) fn slot(facts: &CatalogFacts, wanted: &WantedObjects, report: &mut CheckReport) {
    let Some(found) = &facts.slot else {
        let (used, max) = (facts.server.slots, facts.server.slots_max);
        if used >= max {
            report.add(SetupDiagnostic::NoFreeSlot { max });
        } else {
            report.add(CheckFinding::ok(format!("slot {} will be made at the start", wanted.slot)));
            idle_timeout(facts, wanted, report);
            report.makes_slot = true;
        }
        return;
    };
    if let Some(defect) = found.defect() {
        report.add(defect);
        return;
    }
    report.add(match found {
        SlotStream { active_pid: Some(pid), active_name: Some(name), .. }
            if name == APPLICATION_NAME =>
        {
            CheckFinding::ok(format!(
                "slot {} is in use by a walhook, server process {pid}",
                found.name
            ))
        }
        SlotStream { active_pid: pid @ Some(_), .. } => {
            SetupDiagnostic::SlotInUse { slot: found.name.clone(), pid: *pid }.into()
        }
        _ => CheckFinding::ok(format!("slot {} is there, not in use", found.name)),
    });
    if wanted.failover {
        report.add(CheckFinding::ok(match found.failover {
            true => format!("slot {} is one that standbys keep", found.name),
            false => {
                format!("slot {} will be one that standbys keep, from the start on", found.name)
            }
        }));
    }
    idle_timeout(facts, wanted, report);
    let retained = found.retained_bytes.unwrap_or_default();
    let megabytes = retained / (1024 * 1024);
    report.add(match found.wal_status.as_str() {
        "unreserved" => CheckFinding::warning(
            format!("slot {} is about to be lost: it is {megabytes} MiB behind", found.name),
            "start walhook, or raise max_slot_wal_keep_size".to_owned(),
        ),
        _ if found.is_in_danger() => CheckFinding::warning(
            format!(
                "slot {} retains {megabytes} MiB of WAL and may be lost after {} MiB more",
                found.name,
                found.safe_bytes.unwrap_or_default() / (1024 * 1024)
            ),
            "start walhook, see what its endpoints wait for, or raise max_slot_wal_keep_size"
                .to_owned(),
        ),
        _ => CheckFinding::ok(format!("slot {} retains {megabytes} MiB of WAL", found.name)),
    });
}

/// PostgreSQL 18 can give up slots that nobody reads.
fn idle_timeout(facts: &CatalogFacts, wanted: &WantedObjects, report: &mut CheckReport) {
    let Some(limit) = &facts.server.idle_slot_timeout else { return };
    report.add(CheckFinding::warning(
        format!(
            "slot {} is lost when walhook is away for longer than {limit} \
             (idle_replication_slot_timeout)",
            wanted.slot
        ),
        "set it to more than the longest outage that you plan for, or to 0".to_owned(),
    ));
}
