// All that an operator asks first.
import { html, useEffect, useState } from "./preact.js";
import * as api from "./api.js";
import { Chart } from "./chart.js";
import { Count, Loaded, Tile, Time, useLoad, Data } from "./parts.js";
import { link } from "./route.js";
import { condition, bytes, number, span, t } from "./words.js";

const rate = (value) => (value == null ? "–" : `${value >= 100 ? value.toFixed(0) : value.toFixed(1)}/s`);

// Where a problem is mended: the screen that shows what it is about.
function screenOf(about) {
  const [kind, name] = [about.split(" ")[0], about.split(" ").slice(1).join(" ")];
  if (kind === "endpoint" && name) return link("endpoints", name);
  return link("source");
}

export function Problems({ of }) {
  if (of.length === 0) return html`<p class="well">${t("All is well")}.</p>`;
  return html`<ul class="problems">${of.map((one) => html`<li>
    <a href=${screenOf(one.about)}><${Data} of=${one.about} /></a>: <${Data} of=${one.what} />
    <div class="fix">${t("What mends it")}: <${Data} of=${one.do} /></div>
  </li>`)}</ul>`;
}

// Of a source that several processes share: whether somebody delivers for all of it.
const Partitions = ({ of: { count, unowned } }) => html`<${Tile} label=${t("Partitions with an owner")} href=${link("source")} tone=${unowned.length > 0 ? "bad" : ""}
  note=${unowned.length > 0 ? t("Nobody delivers for {0}", unowned.join(", ")) : ""}>${t("{0} of {1}", number(count - unowned.length), number(count))}<//>`;

// Numbers as they change, as long as the page is looked at.
function useNumbers() {
  const [numbers, setNumbers] = useState(null);
  useEffect(() => {
    let source = null;
    let last = null;
    const open = () => {
      source = api.live({ outcome: "dead" });
      source.addEventListener("numbers", (e) => {
        const now = JSON.parse(e.data);
        const seconds = last ? (new Date(now.at) - new Date(last.at)) / 1000 : 0;
        const of = (name) => (seconds > 0 ? Math.max(0, now[name] - last[name]) / seconds : null);
        setNumbers({ ...now, in: of("captured"), out: of("delivered") });
        last = now;
      });
      source.addEventListener("dropped", () => { source.close(); open(); });
    };
    open();
    return () => source.close();
  }, []);
  return numbers;
}

export function Overview({ health, query }) {
  const isDay = query.chart === "day";
  const load = useLoad(() => api.get("/api/v1/overview"), [], 10);
  const now = useNumbers();
  const status = health?.status;
  return html`<div><h1>${t("Overview")}</h1>
    ${status && html`<${Problems} of=${status.problems} />`}
    <${Loaded} of=${load}>${(data) => {
      const at = { ...data, ...(now ?? {}) };
      const samples = data.samples[isDay ? "day" : "hour"];
      const last = data.samples.hour.at(-1);
      const times = samples.map((one) => one.at);
      const of = (name) => samples.map((one) => one[name]);
      const parked = (status?.endpoints ?? []).filter((one) => one.state === "paused").reduce((sum, one) => sum + one.backlog, 0);
      const safe = at.safe_wal_bytes;
      return html`<div class="tiles">
          <${Tile} label=${t("In")}>${rate(now?.in ?? last?.captured_rate)}<//>
          <${Tile} label=${t("Out")}>${rate(now?.out ?? last?.delivered_rate)}<//>
          <${Tile} label=${t("Commit to delivered, p50 / p99")}>${span(last?.p50)} / ${span(last?.p99)}<//>
          <${Tile} label=${t("Waiting")} note=${parked > 0 ? t("{0} in memory, {1} parked, {2} of it paused", number(at.waiting_memory), number(at.waiting_backlog), number(parked)) : t("{0} in memory, {1} parked", number(at.waiting_memory), number(at.waiting_backlog))} href=${link("endpoints")}>${number(at.waiting_memory + at.waiting_backlog)}<//>
          <${Tile} label=${t("Dead letters")} tone=${at.dead_letters > 0 ? "bad" : ""} href=${link("letters")}>${number(at.dead_letters)}<//>
          <${Tile} label=${t("WAL kept for the slot")} href=${link("source")} tone=${safe != null && safe <= at.retained_wal_bytes ? "bad" : ""}
            note=${safe == null ? t("no limit is set") : t("{0} more before the slot may be lost", bytes(safe))}>${bytes(at.retained_wal_bytes)}<//>
          <${Tile} label=${t("Oldest commit not settled")}>${at.lag_seconds > 0 ? span(at.lag_seconds) : t("none")}<//>
          <${Tile} label=${t("Last commit seen")}><${Time} at=${at.last_commit_at} /><//>
          ${status?.partitions && html`<${Partitions} of=${status.partitions} />`}
          <${Tile} label=${t("Books")} tone=${data.books.balanced ? "" : "bad"}
            note=${t("{0} captured = {1} delivered + {2} filtered + {3} expired + {4} dead + {5} waiting", ...["captured", "delivered", "filtered", "expired", "dead", "pending"].map((name) => number(data.books[name])))}>
            ${data.books.balanced ? t("balanced") : t("NOT balanced")}<//>
        </div>
        <div class="tabs" role="group" aria-label=${t("Span of the charts")}>
          <a href=${link("overview")} aria-current=${isDay ? null : "true"}>${t("1 hour")}</a>
          <a href=${link("overview", "", { chart: "day" })} aria-current=${isDay ? "true" : null}>${t("24 hours")}</a>
        </div>
        <div class="charts">
          <${Chart} title=${t("Events a second")} times=${times} series=${[
            { label: t("In"), values: of("captured_rate"), said: rate, colour: "blue" },
            { label: t("Out"), values: of("delivered_rate"), said: rate, colour: "green" },
            { label: t("Failed attempts"), values: of("failed_rate"), said: rate, colour: "red" }]} />
          <${Chart} title=${t("Commit to delivered")} times=${times} series=${[
            { label: "p50", values: of("p50"), said: span, colour: "green" },
            { label: "p99", values: of("p99"), said: span, colour: "amber" }]} />
          <${Chart} title=${t("Waiting and dead")} times=${times} series=${[
            { label: t("Memory"), values: of("waiting_memory"), said: number, colour: "blue" },
            { label: t("Parked"), values: of("waiting_backlog"), said: number, colour: "amber" },
            { label: t("Dead letters"), values: of("dead_letters"), said: number, colour: "red" }]} />
          <${Chart} title=${t("WAL kept for the slot")} times=${times} series=${[
            { label: t("Kept"), values: of("retained_wal_bytes"), said: bytes, colour: "blue" }]} />
        </div>`;
    }}<//>
    ${status && status.endpoints.some((one) => one.condition !== "delivering") && html`<h2>${t("Endpoints that are not well")}</h2>
      <ul class="plain">${status.endpoints.filter((one) => one.condition !== "delivering").slice(0, 20).map((one) => html`<li>
        <a href=${link("endpoints", one.name)}><${Data} of=${one.name} /></a>: ${condition(one.condition)}
        ${one.since && html`, ${t("since")} <${Time} at=${one.since} />`}
        ${one.next_attempt && html`, ${t("next attempt")} <${Time} at=${one.next_attempt} ahead />`}
        ${one.last_failure && html`, <${Data} of=${one.last_failure} />`}
      </li>`)}</ul>`}
    ${status && html`<p class="quiet">walhook ${status.version}, <${Count} of=${status.endpoints_total} one="{0} endpoint" many="{0} endpoints" /></p>`}</div>`;
}
