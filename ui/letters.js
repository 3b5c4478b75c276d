// Dead letters: a filter, the count of all that it means, and then what is to be done with them.
import { html, useEffect, useState } from "./preact.js";
import * as api from "./api.js";
import { Act, Badge, Body, Data, Dialog, Filters, Loaded, Rows, SINCE, Time, announce, range, useLoad, visible } from "./parts.js";
import { link } from "./route.js";
import { number, t } from "./words.js";

const CLASSES = ["status", "timeout", "dns", "connect", "tls", "protocol", "refused", "request", "local", "gone", "deleted", "backlog_rows", "backlog_age", "poison"];
const STATES = ["open", "dead", "requested", "resending", "delivered", "expired", "discarded", "all"];
// Groups that are listed, the largest first.
const GROUPS = 50;
const PAGE = 50;

const fields = () => [
  { name: "endpoint", label: t("Endpoint") },
  { name: "event_type", label: t("Event type") },
  { name: "class", label: t("Reason"), choices: [["", t("Any")], ...CLASSES.map((one) => [one, t(one)])] },
  { name: "key", label: t("Key") },
  { name: "event_id", label: t("Event id"), wide: true },
  { name: "state", label: t("State"), choices: STATES.map((one) => [one === "open" ? "" : one, t(one)]) },
  { name: "since", label: t("Time"), choices: [["", t("All")], ...SINCE().filter(([value]) => value !== "all").map(([value, said]) => [value || "1h", said])] },
  { name: "from", label: t("From"), kind: "datetime-local" },
  { name: "before", label: t("Before"), kind: "datetime-local" },
];

// What says which letters, for lists and for bulk actions alike.
const filterOf = (query) => ({
  ...Object.fromEntries(["endpoint", "event_type", "class", "key", "event_id"].filter((name) => query[name]).map((name) => [name, query[name]])),
  ...range(query, "all"),
});

// `frozen`: the filter as it was when it was counted.
function Bulk({ what, frozen, close, begun }) {
  const [count, setCount] = useState(null);
  const [error, setError] = useState(null);
  const [rate, setRate] = useState("100");
  const [to, setTo] = useState("");
  const isSend = what === "resend";
  const body = () => ({ ...frozen, ...(Object.keys(frozen).length === 0 ? { all: true } : {}), ...(isSend && to ? { to } : {}) });
  useEffect(() => {
    let over = false;
    setCount(null);
    setError(null);
    api.post(`/api/v1/dead-letters/${what}`, { ...body(), dry_run: true })
      .then((found) => !over && setCount(found), (refused) => !over && setError(refused));
    return () => { over = true; };
  }, [to]);
  const run = async () => {
    const rated = isSend && rate ? { rate: Number(rate) } : {};
    const done = await api.post(`/api/v1/dead-letters/${what}`, { ...body(), ...rated });
    announce(isSend ? t("{0} are being sent again", number(done.requested)) : t("{0} are discarded", number(done.discarded)));
    begun(isSend ? { filter: to ? { ...frozen, endpoint: to } : frozen, all: done.requested } : null);
    close();
  };
  const said = Object.entries(frozen);
  return html`<${Dialog} title=${isSend ? t("Send dead letters again") : t("Discard dead letters")} onClose=${close}>
    <p>${said.length === 0 ? t("All dead letters") : t("All that fit this filter")}:</p>
    ${said.length > 0 && html`<dl class="facts">${said.map(([name, value]) => html`<dt>${t(name)}</dt><dd><${Data} of=${value} /></dd>`)}</dl>`}
    ${error && html`<p class="problem" role="alert">${visible(error.message)}</p>`}
    <p class="count" aria-live="polite">${count === null ? `${t("Counting")} …` : html`<strong id="count">${number(count.letters)}</strong> ${t("dead letters")}`}
      ${count?.without_body > 0 && html`<br /><span class="quiet">${t("{0} more have no body and cannot be sent", number(count.without_body))}</span>`}
      ${(count?.not_configured ?? []).length > 0 && html`<br /><span class="quiet">${t("{0} more are for endpoints that are not configured", number(count.not_configured.reduce((sum, one) => sum + one.letters, 0)))}</span>`}</p>
    ${isSend && html`<div class="pair">
      <label><span>${t("A second")}</span><input name="rate" type="number" min="1" max="100000" value=${rate} onInput=${(e) => setRate(e.target.value)} /></label>
      <label><span>${t("To another endpoint (else their own)")}</span><input name="to" value=${to} onChange=${(e) => setTo(e.target.value.trim())} /></label></div>`}
    <div class="buttons">
      <${Act} label=${isSend ? t("Send {0} again", number(count?.letters)) : t("Discard {0}", number(count?.letters))} tone=${isSend ? "primary" : "danger"} disabled=${!count || count.letters === 0} run=${run} />
      <button type="button" onClick=${close}>${t("Leave")}</button></div>
  <//>`;
}

// How far a resend has come: what the filter means, by state.
function Progress({ of, close }) {
  const load = useLoad(() => api.get("/api/v1/dead-letters/groups", { ...of.filter, state: "all" }), [of], 1);
  // Before the first answer nothing is known of it.
  const groups = load.data?.groups;
  const sum = (...states) => (groups ?? []).filter((one) => states.includes(one.state)).reduce((all, one) => all + one.letters, 0);
  const open = sum("requested", "resending");
  const done = Math.max(0, of.all - open);
  useEffect(() => {
    if (groups && open === 0) dispatchEvent(new CustomEvent("walhook:reload"));
  }, [groups !== undefined && open === 0]);
  const stop = async () => {
    const body = Object.keys(of.filter).length === 0 ? { all: true } : of.filter;
    const { cancelled } = await api.post("/api/v1/dead-letters/cancel", body);
    load.again();
    return t("{0} are not sent after all", number(cancelled));
  };
  return html`<section class="report" role="status" id="progress"><h3>${t("Being sent again")}</h3>
    <progress max=${of.all} value=${groups ? done : 0}></progress>
    <p>${groups ? t("{0} of {1} done, {2} to go", number(done), number(of.all), number(open)) : `${t("Counting")} …`}</p>
    <div class="buttons">${!groups || open > 0 ? html`<${Act} label=${t("Cancel the rest")} run=${stop} />` : html`<button type="button" onClick=${close}>${t("Close")}</button>`}</div></section>`;
}

function Letter({ id, close }) {
  const load = useLoad(() => api.get(`/api/v1/dead-letters/${id}`), [id]);
  const act = (what) => async () => {
    await api.bare(`/api/v1/dead-letters/${id}/${what}`);
    close();
    dispatchEvent(new CustomEvent("walhook:reload"));
    return what === "resend" ? t("It is being sent again") : t("It is discarded");
  };
  return html`<${Dialog} title=${t("Dead letter {0}", id)} onClose=${close}><${Loaded} of=${load}>${(one) => html`
    <dl class="facts">
      <dt>${t("State")}</dt><dd><${Badge} of=${one.state} /></dd>
      <dt>${t("Reason")}</dt><dd><${Data} of=${one.reason} /></dd>
      <dt>${t("Endpoint")}</dt><dd><a href=${link("endpoints", one.endpoint)}><${Data} of=${one.endpoint} /></a></dd>
      <dt>${t("Event")}</dt><dd><a href=${link("event", one.event_id)}><code>${one.event_id}</code></a></dd>
      <dt>${t("Committed")}</dt><dd><${Time} at=${one.committed_at} /></dd>
      <dt>${t("Attempts")}</dt><dd>${number(one.attempts)}</dd>
    </dl>
    <${Body} text=${one.body === null || one.body === undefined ? null : JSON.stringify(one.body)} />
    <div class="buttons">
      <${Act} label=${t("Send again")} tone="primary" disabled=${one.state !== "dead" || one.body_bytes === 0} run=${act("resend")} />
      <${Act} label=${t("Discard")} tone="danger" disabled=${!["dead", "requested"].includes(one.state)} run=${act("discard")} />
      <button type="button" onClick=${close}>${t("Close")}</button></div>`}<//><//>`;
}

export function Letters({ query }) {
  const [bulk, setBulk] = useState(null);
  const [running, setRunning] = useState(null);
  const [shown, setShown] = useState(null);
  const [pages, setPages] = useState([]);
  const what = JSON.stringify(query);
  const state = query.state || undefined;
  const load = useLoad(async () => {
    const asked = { ...filterOf(query), state };
    const [groups, list] = await Promise.all([
      api.get("/api/v1/dead-letters/groups", asked), api.get("/api/v1/dead-letters", { ...asked, limit: PAGE }),
    ]);
    return { groups, list };
  }, [what], 10);
  useEffect(() => setPages([]), [what]);
  const more = async (cursor) => {
    const page = await api.get("/api/v1/dead-letters", { ...filterOf(query), state, limit: PAGE, cursor });
    setPages((before) => [...before, page]);
  };
  const rowOf = (one) => ({
    key: one.id,
    href: link("event", one.event_id),
    cells: [
      html`<button type="button" class="small" onClick=${() => setShown(one.id)}>${one.id}</button>`,
      html`<${Badge} of=${one.state} />`,
      html`<a href=${link("endpoints", one.endpoint)}><${Data} of=${one.endpoint} /></a>`,
      html`<${Data} of=${one.event_type} word />`,
      html`<${Data} of=${one.key} />`,
      html`<${Data} of=${one.reason} />`,
      number(one.attempts),
      html`<${Time} at=${one.died_at} />`,
      html`<a href=${link("event", one.event_id)}><code>${one.event_id.slice(0, 12)}…</code></a>`,
    ],
  });
  const head = [t("Number"), t("State"), t("Endpoint"), t("Event type"), t("Key"), t("Reason"), t("Attempts"), t("Died"), t("Event")];
  return html`<div><h1>${t("Dead letters")}</h1>
    <${Filters} fields=${fields()} query=${query}>
      <button type="button" class="primary" onClick=${() => setBulk({ what: "resend", frozen: filterOf(query) })}>${t("Send again …")}</button>
      <button type="button" class="danger" onClick=${() => setBulk({ what: "discard", frozen: filterOf(query) })}>${t("Discard …")}</button><//>
    ${running && html`<${Progress} of=${running} close=${() => setRunning(null)} />`}
    <${Loaded} of=${load}>${({ groups, list }) => {
      const all = [list, ...pages];
      const next = all.at(-1).next_cursor;
      return html`<p class="count"><strong>${number(groups.letters)}</strong> ${t("fit this filter")}</p>
        ${groups.groups.length > 1 && html`<${Rows} head=${[t("Letters"), t("Reason"), t("Endpoint"), t("State"), t("First"), t("Last")]} label=${t("Groups")}
          rows=${groups.groups.slice(0, GROUPS).map((one) => ({ key: `${one.endpoint}/${one.class}/${one.state}`, href: link("letters", "", { ...query, endpoint: one.endpoint, class: one.class, state: one.state }), cells: [
            number(one.letters), html`<a href=${link("letters", "", { ...query, endpoint: one.endpoint, class: one.class, state: one.state })}>${t(one.class)}</a>`,
            html`<${Data} of=${one.endpoint} />`, html`<${Badge} of=${one.state} />`, html`<${Time} at=${one.first_died_at} />`, html`<${Time} at=${one.last_died_at} />`] }))} />
          ${groups.groups.length > GROUPS && html`<p class="quiet">${t("and {0} more groups, of fewer letters: a filter shows them", number(groups.groups.length - GROUPS + groups.groups_left_out))}</p>`}`}
        <${Rows} head=${head} rows=${all.flatMap((page) => page.dead_letters).map(rowOf)} label=${t("Dead letters")} empty=${t("No dead letter fits this filter")} />
        ${next && html`<div class="buttons"><button type="button" onClick=${() => more(next)}>${t("Show older ones")}</button></div>`}`;
    }}<//>
    ${bulk && html`<${Bulk} ...${bulk} close=${() => setBulk(null)} begun=${(begun) => { setRunning(begun); load.again(); }} />`}
    ${shown !== null && html`<${Letter} id=${shown} close=${() => setShown(null)} />`}</div>`;
}
