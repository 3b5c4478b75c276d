// The database behind the events: is its WAL safe, who holds the slot, what stands in the way.
import { html, useState } from "./preact.js";
import * as api from "./api.js";
import { Members } from "./members.js";
import { Act, Badge, Data, Loaded, Rows, Tile, Time, useLoad } from "./parts.js";
import { link } from "./route.js";
import { bytes, number, span, t } from "./words.js";

const ROLE = { streaming: "active", degraded: "active, and something is lacking", blocked: "blocked by a standby", standby: "standby", delivering: "worker" };

export function Source() {
  const [found, setFound] = useState(null);
  const load = useLoad(() => api.get("/api/v1/source"), [], 5);
  return html`<div><h1>${t("Source")}</h1>
    <${Loaded} of=${load}>${({ source, tables, skipped, lag_seconds: lag, last_commit_at: last }) => {
      const { wal } = source;
      const isTight = wal && wal.safe_bytes != null && wal.safe_bytes <= wal.retained_bytes;
      return html`
        <div class="tiles">
          <${Tile} label=${t("Role")} tone=${["streaming", "standby", "delivering"].includes(source.state) ? "" : "bad"} note=${source.reason}>${t(ROLE[source.state] ?? source.state)}<//>
          <${Tile} label=${t("WAL kept for the slot")} tone=${isTight ? "bad" : ""}
            note=${wal && (wal.safe_bytes == null ? t("no limit is set") : t("{0} more before the slot may be lost", bytes(wal.safe_bytes)))}>${bytes(wal?.retained_bytes)}<//>
          <${Tile} label=${t("Behind")} note=${lag > 0 ? t("the oldest commit not settled is {0} old", span(lag)) : t("everything is settled")}>${bytes(wal?.lag_bytes)}<//>
          <${Tile} label=${t("Last commit seen")}><${Time} at=${last} /><//>
        </div>
        <p class=${isTight ? "problem" : "well"}>${isTight ? t("The slot may soon be lost: see what its endpoints wait for, or raise max_slot_wal_keep_size") : t("The WAL is safe")}.</p>
        ${source.problems.length > 0 && html`<h2>${t("What tables and publication lack")}</h2><ul class="problems">${source.problems.map((one) => html`<li><${Data} of=${one} /></li>`)}</ul>`}
        <${Slot} of=${source} />
        <${Members} />
        <h2>${t("Tables")}</h2>
        <${Rows} head=${[t("Table"), t("Event type"), t("Raised by"), t("Changes read"), ""]} label=${t("Tables")}
          rows=${tables.map((one) => ({ key: `${one.table}/${one.event_type}`, cells: [html`<${Data} of=${one.table} />`, html`<${Data} of=${one.event_type} />`, one.on.map((op) => t(op)).join(", "), number(one.captured), html`<a href=${link("replays", "", { backfill: one.quoted })}>${t("Send its rows")}</a>`] }))} />
        <h2>${t("Gaps")}</h2>
        ${skipped.length === 0 ? html`<p class="well">${t("No transaction was left out")}.</p>` : html`
          <p class="problem">${t("These transactions could not be sent and were left out on an operator's word. Send what is missing from the tables, then delete their rows from walhook.gaps")}.</p>
          <${Rows} head=${[t("Committed at"), t("Left out"), t("Changes sent before"), t("Why")]} label=${t("Gaps")}
            rows=${skipped.map((one) => ({ key: one.commit_lsn, cells: [html`<code>${one.commit_lsn}</code>`, html`<${Time} at=${one.skipped_at} />`, number(one.sent), html`<${Data} of=${one.reason} />`] }))} />`}
        <h2>${t("What a check finds")}</h2>
        <div class="buttons"><${Act} label=${t("Check now")} run=${async () => setFound((await api.get("/api/v1/source/findings")).findings)} /></div>
        ${found && html`<ul class="findings">${found.map((one) => html`<li><${Badge} of=${one.level} /> <${Data} of=${one.what} />${one.fix && html`<pre><${Data} of=${one.fix} /></pre>`}</li>`)}</ul>`}`;
    }}<//></div>`;
}

// The slot and who holds it, as whoever reads it or stands by for it knows them.
function Slot({ of }) {
  const { wal, holder } = of;
  if (of.state === "delivering") return html`<div><h2>${t("Slot")}</h2><p class="quiet">${t("Another process has the slot: its page shows it")}.</p></div>`;
  return html`<div>
    <h2>${t("Slot")}</h2>
    <dl class="facts">
      <dt>${t("Slot")}</dt><dd><${Data} of=${of.slot} /></dd>
      <dt>${t("Publication")}</dt><dd><${Data} of=${of.publication} /></dd>
      <dt>PostgreSQL</dt><dd><${Data} of=${of.version} />, ${t("system {0}, timeline {1}", of.system, of.timeline)}</dd>
      <dt>${t("Received")}</dt><dd><code>${of.received_lsn}</code></dd>
      <dt>${t("Confirmed")}</dt><dd><code>${of.confirmed_lsn}</code></dd>
      <dt>${t("End of the WAL at the last look")}</dt><dd><code>${wal?.current ?? "–"}</code></dd>
      <dt>${t("Connected again")}</dt><dd>${t("{0} times", number(of.reconnects))}</dd>
    </dl>
    <h2>${t("Who holds the slot")}</h2>
    ${holder ? html`<dl class="facts">
      <dt>${t("Holder")}</dt><dd>${holder.self ? html`<${Badge} of="this process" tone="good" /> ` : ""}<${Data} of=${holder.name ?? holder.application_name} /></dd>
      <dt>${t("Since")}</dt><dd><${Time} at=${holder.since} /></dd>
      <dt>${t("Address")}</dt><dd><${Data} of=${holder.client_address} /></dd>
      <dt>${t("Server process")}</dt><dd>${holder.server_pid ?? "–"}</dd></dl>`
      : html`<p class="quiet">${t("Nobody, or nobody has looked yet")}</p>`}</div>`;
}
