// Endpoints: how each does, in words, and what can be done about it.
import { html, useState } from "./preact.js";
import * as api from "./api.js";
import { Chart } from "./chart.js";
import { Act, Badge, Copy, Data, Dialog, Filters, Loaded, Rows, Time, announce, moment, useLoad } from "./parts.js";
import { go, link } from "./route.js";
import { condition, number, span, t } from "./words.js";

const STATES = ["enabled", "paused", "disabled", "gone", "refused", "removing"];
const PER_PAGE = 100;

// How it does in one word, for its colour.
const toneOf = (one) => {
  if (one.breaker === "open" || ["gone", "refused"].includes(one.state)) return "bad";
  if (one.state === "paused" || one.backlog > 0 || one.condition.startsWith("slow")) return "warn";
  return one.state === "enabled" ? "good" : "quiet";
};

const percent = (share) => `${(100 * share).toFixed(1)} %`;

const rowOf = (one) => ({
  key: one.name,
  href: link("endpoints", one.name),
  cells: [
    html`<a href=${link("endpoints", one.name)}><${Data} of=${one.name} /></a>`,
    html`<span class="badge ${toneOf(one)}">${condition(one.condition)}</span>`,
    number(one.queued + one.backlog),
    html`<${Time} at=${one.oldest} />`,
    one.next_attempt ? html`<${Time} at=${one.next_attempt} ahead />` : html`<span class="quiet">–</span>`,
    number(one.dead_letters),
    one.success_last_hour == null ? html`<span class="quiet">–</span>` : html`<span class="word">${percent(one.success_last_hour)}, p99 ${span(one.p99_seconds)}</span>`,
    html`<${Data} of=${one.last_failure} />`,
    html`<${Data} of=${one.url} />`,
  ],
});

/** The status with those of this name in it: of very many endpoints it shows a part by itself. */
function useStatusOf(status, name) {
  const isCut = status && status.endpoints.length < status.endpoints_total;
  const found = useLoad(async () => (isCut && name ? api.get("/api/v1/status", { name }) : null), [isCut, name], 5);
  return (isCut && name && found.data) || status;
}

export function Endpoints({ query, health }) {
  const status = useStatusOf(health?.status, query.name);
  const fields = [
    { name: "name", label: t("Name") },
    { name: "state", label: t("State"), choices: [["", t("Any")], ["unwell", t("Not well")], ...STATES.map((one) => [one, t(one)])] },
  ];
  const meant = (one) =>
    (!query.name || one.name.toLowerCase().includes(query.name.toLowerCase())) &&
    (!query.state || (query.state === "unwell" ? one.condition !== "delivering" : one.state === query.state));
  const head = [t("Name"), t("How it does"), t("Waiting"), t("Oldest"), t("Next attempt"), t("Dead letters"), t("Last hour"), t("Last failure"), t("Address")];
  const shown = Number(query.shown ?? PER_PAGE);
  const all = (status?.endpoints ?? []).filter(meant);
  return html`<div><h1>${t("Endpoints")}</h1>
    <${Filters} fields=${fields} query=${query} />
    <${Loaded} of=${{ data: status, error: health?.error }}>${() => html`
      ${status.endpoints.length < status.endpoints_total && html`<p class="quiet">${t("{0} of {1} endpoints: those that are not well, or that something waits for, go before the others. A name finds the rest.", number(status.endpoints.length), number(status.endpoints_total))}</p>`}
      <${Rows} head=${head} rows=${all.slice(0, shown).map(rowOf)} label=${t("Endpoints")} empty=${t("No endpoint fits")} />
      ${all.length > shown && html`<div class="buttons"><a class="button" href=${link("endpoints", "", { ...query, shown: shown + PER_PAGE })}>${t("Show more of {0}", number(all.length))}</a></div>`}`}<//></div>`;
}

function Rotate({ name, close }) {
  const [made, setMade] = useState(null);
  const [overlap, setOverlap] = useState("24h");
  const rotate = async () => {
    setMade(await api.post(`/api/v1/endpoints/${api.part(name)}/rotate-secret`, { overlap }));
  };
  return html`<${Dialog} title=${t("Rotate the secret of {0}", name)} onClose=${close}>
    ${made === null ? html`
      <p>${t("A new secret is made. Until the end of the overlap both sign, so that the receiver can change over")}.</p>
      <label><span>${t("Overlap")}</span><input name="overlap" value=${overlap} onInput=${(e) => setOverlap(e.target.value)} /></label>
      <div class="buttons"><${Act} label=${t("Rotate")} tone="primary" run=${rotate} /><button type="button" onClick=${close}>${t("Leave")}</button></div>`
    : html`
      ${made.secret ? html`<p>${t("The new secret is shown once")}:</p><p><code class="secret">${made.secret}</code> <${Copy} text=${made.secret} /></p>` : ""}
      ${made.previous_until && html`<p>${t("The one before signs as well until")} <strong><time datetime=${made.previous_until}>${made.previous_until}</time></strong></p>`}
      <div class="buttons"><button type="button" class="primary" onClick=${close}>${t("Done")}</button></div>`}
  <//>`;
}

// What was given up and what was delivered since a moment, counted before anything is done.
function ResendSince({ name, close }) {
  const [from, setFrom] = useState("");
  const [rate, setRate] = useState("100");
  const [count, setCount] = useState(null);
  const filter = () => ({ endpoint: name, from: moment(from) });
  const preview = async () => {
    const [letters, replay] = await Promise.all([
      api.post("/api/v1/dead-letters/resend", { ...filter(), dry_run: true }),
      api.post("/api/v1/replay", { ...filter(), dry_run: true }),
    ]);
    setCount({ letters, replay });
  };
  const send = async () => {
    // The delivered ones first: a letter that is delivered meanwhile is not one of them.
    if (count.replay.events > 0) await api.post("/api/v1/replay", { ...filter(), rate: Number(rate) });
    if (count.letters.letters > 0) await api.post("/api/v1/dead-letters/resend", { ...filter(), rate: Number(rate) });
    close();
    announce(t("It is being sent again"));
    go("replays");
  };
  const sum = count ? count.letters.letters + count.replay.events : 0;
  return html`<${Dialog} title=${t("Send again to {0} all since a time", name)} onClose=${close}>
    <label><span>${t("Since")}</span><input name="since" type="datetime-local" value=${from} required onInput=${(e) => { setFrom(e.target.value); setCount(null); }} /></label>
    <label><span>${t("A second")}</span><input name="rate" type="number" min="1" max="100000" value=${rate} onInput=${(e) => setRate(e.target.value)} /></label>
    ${count && html`<ul class="plain">
      <li>${t("{0} dead letters", number(count.letters.letters))}</li>
      <li>${t("{0} events that were delivered", number(count.replay.events))}${count.replay.without_body > 0 && html` <span class="quiet">(${t("{0} more have no body in the push log", number(count.replay.without_body))})</span>`}</li></ul>`}
    <div class="buttons">
      ${count === null ? html`<${Act} label=${t("Count")} tone="primary" disabled=${!from} run=${preview} />`
        : html`<${Act} label=${t("Send {0} again", number(sum))} tone="primary" disabled=${sum === 0} run=${send} />`}
      <button type="button" onClick=${close}>${t("Leave")}</button></div>
  <//>`;
}

function Test({ report }) {
  return html`<section class="report" role="status"><h3>${t("Test event")}</h3>
    <p><${Badge} of=${report.delivered ? "delivered" : "dead"} /> ${report.status ?? "–"} ${t("in {0}", span(report.duration_ms / 1000))}
    ${report.error && html` <${Data} of=${`${report.error.class}: ${report.error.detail}`} />`}</p>
    ${report.response && html`<pre><${Data} of=${report.response} /></pre>`}</section>`;
}

function NewAddress({ name, close }) {
  const [url, setUrl] = useState("");
  const change = async () => {
    await fetchPatch(name, { url });
    announce(t("The address is changed"));
    close();
  };
  return html`<${Dialog} title=${t("Another address for {0}", name)} onClose=${close}>
    <label><span>URL</span><input name="url" type="url" value=${url} required placeholder="https://…" onInput=${(e) => setUrl(e.target.value)} /></label>
    <p class="quiet">${t("What waits goes to the new address")}.</p>
    <div class="buttons"><${Act} label=${t("Change")} tone="primary" disabled=${!url} run=${change} /><button type="button" onClick=${close}>${t("Leave")}</button></div>
  <//>`;
}

function Rename({ name, close }) {
  const [to, setTo] = useState("");
  const rename = async () => {
    await api.post(`/api/v1/endpoints/${api.part(name)}/rename`, { name: to });
    close();
    announce(t("It is called {0}", to));
    dispatchEvent(new CustomEvent("walhook:reload"));
    go("endpoints", to);
  };
  return html`<${Dialog} title=${t("Another name for {0}", name)} onClose=${close}>
    <label><span>${t("Name")}</span><input name="rename" value=${to} required maxlength="64" autocomplete="off" spellcheck=${false} onInput=${(e) => setTo(e.target.value.trim())} /></label>
    <p class="quiet">${t("What waits, is dead or paused goes along. The push log keeps the old name for what was")}.</p>
    <div class="buttons"><${Act} label=${t("Rename")} tone="primary" disabled=${!to} run=${rename} /><button type="button" onClick=${close}>${t("Leave")}</button></div>
  <//>`;
}

const fetchPatch = (name, patch) => api.patch(`/api/v1/endpoints/${api.part(name)}`, patch);

export function Endpoint({ name, health }) {
  const [dialog, setDialog] = useState(null);
  const [report, setReport] = useState(null);
  const path = `/api/v1/endpoints/${api.part(name)}`;
  const load = useLoad(async () => {
    const [shown, samples, last] = await Promise.all([
      api.get(path), api.get(`${path}/samples`), api.get("/api/v1/push-logs", { endpoint: name, outcome: "retry", limit: 1 }).catch(() => null),
    ]);
    return { shown, samples: samples.hour, last: last?.push_logs[0] };
  }, [name], 5);
  const one = useStatusOf(health?.status, name)?.endpoints.find((each) => each.name === name);
  const act = (what) => async () => {
    await api.bare(`${path}/${what}`);
    await load.again();
    dispatchEvent(new CustomEvent("walhook:reload"));
  };
  const close = () => { setDialog(null); load.again(); };
  return html`<div><h1><${Data} of=${name} /></h1>
    <${Loaded} of=${load}>${({ shown, samples, last }) => {
      const sum = (field) => samples.reduce((all, each) => all + each[field] * 30, 0);
      const [sent, failed] = [sum("delivered_rate"), sum("failed_rate")];
      const times = samples.map((each) => each.at);
      const rate = (value) => `${value.toFixed(1)}/s`;
      const isPaused = shown.state === "paused";
      return html`
        <p class="state">${one ? html`<span class="badge ${toneOf(one)}">${condition(one.condition)}</span>` : html`<${Badge} of=${shown.state} />`}
          ${one?.since && html` ${t("since")} <${Time} at=${one.since} />`}
          ${one?.next_attempt && html`, ${t("next attempt")} <${Time} at=${one.next_attempt} ahead />`}
          ${isPaused && shown.paused_by && html` <span class="quiet">${t("paused by {0}", shown.paused_by)}, <${Time} at=${shown.paused_since} /></span>`}</p>
        <div class="buttons">
          ${isPaused ? html`<${Act} label=${t("Resume")} tone="primary" run=${act("resume")} />` : html`<${Act} label=${t("Pause")} run=${act("pause")} />`}
          <${Act} label=${t("Try now")} run=${act("try-now")} />
          <${Act} label=${t("Send a test event")} run=${async () => setReport(await api.bare(`${path}/test`))} />
          <button type="button" onClick=${() => setDialog("resend")}>${t("Send again since …")}</button>
          ${shown.source === "api" && html`
            <button type="button" onClick=${() => setDialog("rotate")}>${t("Rotate the secret")}</button>
            <button type="button" onClick=${() => setDialog("url")}>${t("Change the address")}</button>
            <button type="button" onClick=${() => setDialog("rename")}>${t("Rename")}</button>`}
          ${(shown.state === "gone" || shown.state === "disabled") && html`<${Act} label=${t("Enable")} tone="primary" run=${act("enable")} />`}
        </div>
        ${report && html`<${Test} report=${report} />`}
        <dl class="facts">
          <dt>${t("Waiting")}</dt><dd>${t("{0} in memory, {1} parked", number(shown.waiting.memory), number(shown.waiting.backlog))}${one?.oldest && html`, ${t("the oldest")} <${Time} at=${one.oldest} />`}</dd>
          <dt>${t("In flight")}</dt><dd>${number(shown.in_flight)}</dd>
          <dt>${t("Success in the last hour")}</dt><dd>${sent + failed > 0 ? percent(sent / (sent + failed)) : "–"}</dd>
          <dt>p99</dt><dd>${span(samples.at(-1)?.p99)}</dd>
          <dt>${t("Dead letters")}</dt><dd><a href=${link("letters", "", { endpoint: name })}>${number(one?.dead_letters)}</a></dd>
          <dt>${t("Last failure")}</dt><dd>${last ? html`<a href=${link("event", last.event_id)}><${Data} of=${last.error_message ?? last.failure_class} /></a> <${Time} at=${last.created_at} />` : html`<${Data} of=${one?.last_failure} />`}</dd>
          <dt>${t("Address")}</dt><dd><${Data} of=${shown.url} /></dd>
          <dt>${t("Where it is configured")}</dt><dd>${t({ file: "the configuration file", api: "made over the API", table: "a row of the table of [endpoints_from]" }[shown.source] ?? shown.source)}${shown.updated_at && html`, ${t("changed by {0}", shown.updated_by)} <${Time} at=${shown.updated_at} />`}</dd>
          ${(shown.previous_secrets_until ?? []).length > 0 && html`<dt>${t("The secret before signs until")}</dt><dd>${shown.previous_secrets_until.join(", ")}</dd>`}
        </dl>
        <p><a href=${link("events", "", { endpoint: name })}>${t("Its attempts")}</a></p>
        ${samples.length === 0 && html`<p class="quiet">${t("There are no numbers of it yet: the first come within a minute. They are kept of the 200 busiest endpoints and of those that are looked at.")}</p>`}
        <div class="charts">
          <${Chart} title=${t("Attempts a second")} times=${times} series=${[
            { label: t("Delivered"), values: samples.map((each) => each.delivered_rate), said: rate, colour: "green" },
            { label: t("Failed"), values: samples.map((each) => each.failed_rate), said: rate, colour: "red" }]} />
          <${Chart} title=${t("Commit to delivered")} times=${times} series=${[
            { label: "p50", values: samples.map((each) => each.p50), said: span, colour: "green" },
            { label: "p99", values: samples.map((each) => each.p99), said: span, colour: "amber" }]} />
          <${Chart} title=${t("Waiting")} times=${times} series=${[
            { label: t("Memory"), values: samples.map((each) => each.waiting_memory), said: number, colour: "blue" },
            { label: t("Parked"), values: samples.map((each) => each.waiting_backlog), said: number, colour: "amber" }]} />
        </div>
        <h2>${t("Settings")}</h2><pre tabindex="0"><${Data} of=${JSON.stringify(shown.endpoint, null, 2)} /></pre>`;
    }}<//>
    ${dialog === "rotate" && html`<${Rotate} name=${name} close=${close} />`}
    ${dialog === "resend" && html`<${ResendSince} name=${name} close=${() => setDialog(null)} />`}
    ${dialog === "rename" && html`<${Rename} name=${name} close=${() => setDialog(null)} />`}
    ${dialog === "url" && html`<${NewAddress} name=${name} close=${close} />`}</div>`;
}
