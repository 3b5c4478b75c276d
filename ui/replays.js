// Replays of delivered events; backfills stand below them.
import { html, useState } from "./preact.js";
import * as api from "./api.js";
import { Backfills } from "./backfills.js";
import { Act, Badge, Data, Dialog, Filled, Loaded, Rows, announce, moment, useLoad } from "./parts.js";
import { link } from "./route.js";
import { number, t } from "./words.js";

function NewReplay({ close, query }) {
  const [filter, setFilter] = useState({ endpoint: query.endpoint ?? "", event_type: "", key: "", from: "", before: "" });
  const [rate, setRate] = useState("100");
  const [count, setCount] = useState(null);
  const field = (name, label, kind) => html`<label><span>${label}</span><input name=${name} type=${kind ?? "text"} value=${filter[name]}
    onInput=${(e) => { setFilter({ ...filter, [name]: e.target.value.trim() }); setCount(null); }} /></label>`;
  const body = () => {
    const asked = Object.fromEntries(Object.entries({ ...filter, from: moment(filter.from), before: moment(filter.before) }).filter(([, value]) => value));
    return Object.keys(asked).length === 0 ? { all: true } : asked;
  };
  const send = async () => {
    await api.post("/api/v1/replay", { ...body(), rate: Number(rate) });
    announce(t("It is being sent again"));
    close();
  };
  return html`<${Dialog} title=${t("A new replay")} onClose=${close}>
    <p class="quiet">${t("Sends delivered events again, as far as the push log has their bodies")}.</p>
    <div class="pair">${field("endpoint", t("Endpoint"))}${field("event_type", t("Event type"))}${field("key", t("Key"))}${field("from", t("From"), "datetime-local")}${field("before", t("Before"), "datetime-local")}
    <label><span>${t("A second")}</span><input name="rate" type="number" min="1" max="100000" value=${rate} onInput=${(e) => setRate(e.target.value)} /></label></div>
    ${count && html`<p class="count"><strong>${number(count.events)}</strong> ${t("events")}
      ${count.without_body > 0 && html`<br /><span class="quiet">${t("{0} more have no body in the push log", number(count.without_body))}${count.note && html`: <${Data} of=${count.note} />`}</span>`}
      ${count.expired > 0 && html`<br /><span class="quiet">${t("{0} more are too old", number(count.expired))}</span>`}</p>`}
    <div class="buttons">
      ${count === null ? html`<${Act} label=${t("Count")} tone="primary" run=${async () => setCount(await api.post("/api/v1/replay", { ...body(), dry_run: true }))} />`
        : html`<${Act} label=${t("Send {0} again", number(count.events))} tone="primary" disabled=${count.events === 0} run=${send} />`}
      <button type="button" onClick=${close}>${t("Leave")}</button></div>
  <//>`;
}

export function Replays({ query }) {
  const [isNew, setNew] = useState(query.new === "1");
  const load = useLoad(async () => (await api.get("/api/v1/replay")).replays, [], 2);
  const stop = (path) => async () => {
    await api.remove(path);
    load.again();
  };
  const hold = (path) => async () => {
    await api.bare(path);
    load.again();
  };
  const rateOf = (one, done) => {
    const seconds = ((one.finished_at ? new Date(one.finished_at) : Date.now()) - new Date(one.created_at)) / 1000;
    return seconds > 0 ? `${(done / seconds).toFixed(1)}/s` : "–";
  };
  const rowOf = (one) => {
    const done = one.delivered + one.expired + one.failed + one.without_body;
    // How far along the log it is, in time: that is what is known without counting.
    const through = one.done_through && one.from ? (new Date(one.done_through) - new Date(one.from)) / (new Date(one.before) - new Date(one.from)) : null;
    const spent = (Date.now() - new Date(one.created_at)) / 1000;
    return {
      key: one.id,
      cells: [
        one.id, html`<${Badge} of=${one.state} />`,
        html`<a href=${link("endpoints", one.endpoint)}><${Data} of=${one.endpoint} /></a>`,
        html`<${Data} of=${one.event_id ?? one.event_type ?? one.key ?? t("all")} />`,
        html`${number(one.delivered)} <span class="quiet">${t("{0} failed, {1} expired, {2} without a body", number(one.failed), number(one.expired), number(one.without_body))}</span>`,
        one.state === "paused" ? "–" : rateOf(one, done),
        html`<${Filled} state=${one.state} part=${through} left=${through > 0 ? (spent * (1 - through)) / through : null} ended=${one.finished_at} />`,
        html`${one.state === "running" && html`<${Act} small label=${t("Pause")} run=${hold(`/api/v1/replay/${one.id}/pause`)} />`}
          ${one.state === "paused" && html`<${Act} small label=${t("Resume")} run=${hold(`/api/v1/replay/${one.id}/resume`)} />`}
          ${["running", "paused"].includes(one.state) && html` <${Act} small label=${t("Cancel")} run=${stop(`/api/v1/replay/${one.id}`)} />`}`,
      ],
    };
  };
  return html`<div><h1>${t("Replays")}</h1>
    <div class="buttons"><button type="button" class="primary" onClick=${() => setNew(true)}>${t("New replay …")}</button></div>
    <${Loaded} of=${load}>${(replays) => html`
      <${Rows} head=${[t("Number"), t("State"), t("Endpoint"), t("Which"), t("Delivered"), t("Rate"), t("How far"), ""]} rows=${replays.map(rowOf)} label=${t("Replays")} empty=${t("Nothing was sent again yet")} />`}<//>
    <${Backfills} query=${query} />
    ${isNew && html`<${NewReplay} query=${query} close=${() => { setNew(false); load.again(); }} />`}</div>`;
}
