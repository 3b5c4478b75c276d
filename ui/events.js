// The push log: every attempt, by filters that stand in the address.
import { html, useEffect, useRef, useState } from "./preact.js";
import * as api from "./api.js";
import { Badge, Data, Filters, Loaded, Rows, SINCE, clock, range, useLoad } from "./parts.js";
import { link, refine } from "./route.js";
import { number, span, t } from "./words.js";

const CLASSES = ["status", "timeout", "dns", "connect", "tls", "protocol", "refused", "request", "local"];
const ASKED = ["endpoint", "event_type", "key", "event_id", "status", "class", "outcome"];
const PAGE = 50;
// Lines that a live view keeps.
const LIVE_MAX = 200;

export const filtersOf = (query) => Object.fromEntries(ASKED.filter((name) => query[name]).map((name) => [name, query[name]]));

const fields = () => [
  { name: "endpoint", label: t("Endpoint") },
  { name: "event_type", label: t("Event type") },
  { name: "key", label: t("Key") },
  { name: "event_id", label: t("Event id"), wide: true },
  { name: "status", label: t("HTTP status") },
  { name: "class", label: t("Class"), choices: [["", t("Any")], ...CLASSES.map((one) => [one, t(one)])] },
  { name: "outcome", label: t("Outcome"), choices: [["", t("Any")], ...["delivered", "retry", "dead"].map((one) => [one, t(one)])] },
  { name: "since", label: t("Time"), choices: SINCE() },
  { name: "from", label: t("From"), kind: "datetime-local" },
  { name: "before", label: t("Before"), kind: "datetime-local" },
];

export const HEAD = () => [t("Time"), t("Endpoint"), t("Event type"), t("Key"), t("Outcome"), t("Status"), t("Took"), t("Event")];

export function row(one, place) {
  const href = link("event", one.event_id);
  return {
    key: one.id == null ? `${one.event_id}/${one.endpoint}/${one.retry_count}/${one.created_at}` : `${one.id}/${place}`,
    href,
    cells: [
      html`<time datetime=${one.created_at} title=${one.created_at}>${clock(one.created_at)}</time>`,
      html`<a href=${link("endpoints", one.endpoint)}><${Data} of=${one.endpoint} /></a>`,
      html`<${Data} of=${one.event_type} word />`,
      html`<${Data} of=${one.key} />`,
      html`<${Badge} of=${one.outcome} />${one.retry_count > 0 && html` <span class="quiet">${t("retry {0}", one.retry_count)}</span>`}${one.replay && html` <span class="quiet">${t("sent again")}</span>`}`,
      one.http_status ?? (one.failure_class ? t(one.failure_class) : "–"),
      html`<span class="word">${span(one.duration_ms / 1000)}</span>`,
      html`<a href=${href} title=${one.event_id}><code>${one.event_id.slice(0, 12)}…</code></a>${one.events > 1 && html` <span class="quiet">+${number(one.events - 1)}</span>`}`,
    ],
  };
}

// What comes in while somebody looks on. It stands still while the reader has scrolled down.
function useLive(isOn, query) {
  const [state, setState] = useState({ rows: [], more: 0, held: 0, said: t("Connecting") });
  const held = useRef([]);
  useEffect(() => {
    if (!isOn) return undefined;
    let source = null;
    let over = false;
    const show = () => {
      if (scrollY > 120 || held.current.length === 0) return;
      const fresh = held.current;
      held.current = [];
      setState((before) => ({ ...before, rows: [...fresh, ...before.rows].slice(0, LIVE_MAX), held: 0 }));
    };
    const open = () => {
      source = api.live(filtersOf(query));
      source.addEventListener("open", () => setState((before) => ({ ...before, said: t("Attempts as they are made") })));
      source.addEventListener("attempts", (e) => {
        const { attempts, more } = JSON.parse(e.data);
        held.current = [...attempts.reverse(), ...held.current].slice(0, LIVE_MAX);
        setState((before) => ({ ...before, more: before.more + more, held: held.current.length }));
        show();
      });
      source.addEventListener("dropped", () => {
        source.close();
        if (!over) open();
      });
      source.addEventListener("error", () => setState((before) => ({ ...before, said: t("The connection is lost, and is made again") })));
    };
    setState({ rows: [], more: 0, held: 0, said: t("Connecting") });
    open();
    addEventListener("scroll", show, { passive: true });
    return () => {
      over = true;
      source.close();
      removeEventListener("scroll", show);
    };
  }, [isOn, JSON.stringify(filtersOf(query))]);
  return state;
}

export function Events({ query }) {
  const isLive = query.live === "1";
  const [pages, setPages] = useState([]);
  const asked = () => ({ ...filtersOf(query), ...range(query), limit: PAGE });
  const what = JSON.stringify({ ...query, live: undefined });
  const load = useLoad(() => (isLive ? Promise.resolve({ push_logs: [], next_cursor: null }) : api.get("/api/v1/push-logs", asked())), [what, isLive]);
  useEffect(() => setPages([]), [what, isLive, load.data]);
  const live = useLive(isLive, query);
  const more = async (cursor) => {
    const page = await api.get("/api/v1/push-logs", { ...asked(), cursor });
    setPages((before) => [...before, page]);
  };
  const toggle = html`<button class="small ${isLive ? "primary" : ""}" type="button" aria-pressed=${isLive} id="live"
    onClick=${() => refine({ ...query, live: isLive ? "" : "1" })}>${isLive ? t("Live: on") : t("Live: off")}</button>`;
  return html`<div><h1>${t("Events")}</h1>
    <${Filters} fields=${fields()} query=${query}>${toggle}<//>
    ${isLive ? html`
      <p class="quiet" aria-live="off">${live.said}${live.more > 0 && html`; ${t("{0} more were made that are not shown", number(live.more))}`}
      ${live.held > 0 && html` <button class="small" type="button" onClick=${() => scrollTo({ top: 0 })}>${t("{0} new ones: to the top", number(live.held))}</button>`}</p>
      <${Rows} head=${HEAD()} rows=${live.rows.map(row)} label=${t("Attempts")} empty=${t("Nothing was sent since you look on")} />`
    : html`<${Loaded} of=${load}>${(data) => {
        const all = [data, ...pages];
        const rows = all.flatMap((page) => page.push_logs);
        const next = all.at(-1).next_cursor;
        const until = all.at(-1).searched_from;
        return html`<div><${Rows} head=${HEAD()} rows=${rows.map(row)} label=${t("Attempts")}
            empty=${until ? t("None so far") : t("No attempt fits these filters in this time")} />
          ${until && html`<p class="quiet">${t("There are many attempts: looked back to {0}", clock(until))}</p>`}
          ${next && html`<div class="buttons"><button type="button" onClick=${() => more(next)}>${until ? t("Look further back") : t("Show older ones")}</button></div>`}</div>`;
      }}<//>`}</div>`;
}
