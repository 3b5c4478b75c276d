// One event wherever it is.
import { html, useState } from "./preact.js";
import * as api from "./api.js";
import { Act, Badge, Body, Copy, Data, Headers, Loaded, Time, clock, useLoad } from "./parts.js";
import { link } from "./route.js";
import { span, t } from "./words.js";

// A command that makes the request again by hand. Masked values stay masked.
export function curl(attempt, url) {
  const quoted = (text) => `'${String(text).replaceAll("'", "'\\''")}'`;
  const skipped = new Set(["host", "content-length", "connection", "transfer-encoding"]);
  const headers = Object.entries(attempt.request_headers ?? {}).filter(([name]) => !skipped.has(name.toLowerCase()));
  const body = attempt.request_body == null ? "" : ` \\\n  --data-raw ${quoted(attempt.request_body)}`;
  return `curl -X POST ${quoted(url || "https://…")}${headers.map(([name, value]) => ` \\\n  -H ${quoted(`${name}: ${value}`)}`).join("")}${body}`;
}

// What an update changed, where the body says it.
function changes(text) {
  let body;
  try {
    body = JSON.parse(text);
  } catch {
    return [];
  }
  const [now, old] = [body?.data ?? body?.after, body?.old ?? body?.before];
  if (!now || !old || typeof now !== "object" || typeof old !== "object") return [];
  const said = (value) => (value === undefined ? "–" : JSON.stringify(value));
  return Object.keys({ ...old, ...now }).filter((name) => name in old && said(old[name]) !== said(now[name])).map((name) => [name, said(old[name]), said(now[name])]);
}

function Attempt({ of, before, url, isNew }) {
  const [open, setOpen] = useState(isNew || of.outcome !== "delivered");
  const waited = before ? (new Date(of.created_at) - new Date(before.created_at)) / 1000 : null;
  const changed = of.request_body == null ? [] : changes(of.request_body);
  return html`<li class="attempt ${isNew ? "fresh" : ""}">
      ${waited !== null && html`<p class="wait">${t("{0} later", span(waited))}</p>`}
      <button type="button" class="head" aria-expanded=${open} onClick=${() => setOpen(!open)}>
        <time datetime=${of.created_at} title=${of.created_at}>${clock(of.created_at)}</time>
        <${Badge} of=${of.outcome} />
        <span>${of.http_status ?? (of.failure_class ? t(of.failure_class) : "–")}</span>
        <span class="quiet">${span(of.duration_ms / 1000)}${of.replay ? `, ${t("sent again")}` : ""}</span>
      </button>
      ${open && html`<div class="detail">
        ${of.error_message && html`<p class="problem"><${Data} of=${of.error_message} /></p>`}
        ${changed.length > 0 && html`<h4>${t("Old against new")}</h4><table class="diff"><tbody>${changed.map(([name, old, now]) => html`<tr><th scope="row"><${Data} of=${name} /></th><td class="old"><${Data} of=${old} /></td><td class="new"><${Data} of=${now} /></td></tr>`)}</tbody></table>`}
        <div class="pair">
          <section><h4>${t("Request")} <${Copy} text=${curl(of, url)} label=${t("Copy as curl")} /></h4><${Headers} of=${of.request_headers} /><${Body} text=${of.request_body} name=${t("Body of the request")} /></section>
          <section><h4>${t("Answer")}</h4><${Headers} of=${of.response_headers} /><${Body} text=${of.response_body} name=${t("Body of the answer")} /></section>
        </div>
      </div>`}
    </li>`;
}

export function Event({ name, health }) {
  // The attempts that there were when it was sent again: others are its outcome, whatever the clocks say.
  const [known, setKnown] = useState(null);
  const load = useLoad(() => api.get(`/api/v1/events/${api.part(name)}`), [name], 5);
  const urls = Object.fromEntries((health?.status?.endpoints ?? []).map((one) => [one.name, one.url]));
  return html`<div><h1>${t("Event")}</h1>
    <p class="id"><code>${name}</code> <${Copy} text=${name} /></p>
    <${Loaded} of=${load}>${(data) => {
      const endpoints = [...new Set([...data.attempts, ...data.waiting, ...data.dead_letters].map((one) => one.endpoint))].sort();
      return html`<dl class="facts">
          <dt>${t("Event type")}</dt><dd><a href=${link("events", "", { event_type: data.event_type })}><${Data} of=${data.event_type} /></a></dd>
          <dt>${t("Table")}</dt><dd><${Data} of=${data.table} /></dd>
          <dt>${t("Key")}</dt><dd><a href=${link("events", "", { key: data.key, since: "all" })}><${Data} of=${data.key} /></a></dd>
        </dl>
        ${endpoints.map((endpoint) => html`<${At} key=${endpoint} endpoint=${endpoint} data=${data} url=${urls[endpoint]} known=${known}
          sending=${() => setKnown(new Set(data.attempts.map((one) => one.id)))} sent=${load.again} />`)}
        <h2>${t("The same row before and after")}</h2>
        <${Neighbours} of=${[...data.earlier].reverse()} label=${t("Earlier")} />
        <${Neighbours} of=${data.later} label=${t("Later")} />`;
    }}<//></div>`;
}

function Neighbours({ of, label }) {
  return html`<div><h3>${label}</h3>${of.length === 0 ? html`<p class="quiet">${t("None that the push log knows")}</p>` : html`<ul class="plain">${of.map((one) => html`<li>
    <a href=${link("event", one.event_id)}><code>${one.event_id.slice(0, 20)}…</code></a> <${Data} of=${one.event_type} /> <${Badge} of=${one.outcome} /> <${Time} at=${one.created_at} /></li>`)}</ul>`}</div>`;
}

function At({ endpoint, data, url, known, sending, sent }) {
  const attempts = data.attempts.filter((one) => one.endpoint === endpoint).reverse();
  const waiting = data.waiting.filter((one) => one.endpoint === endpoint);
  const letter = data.dead_letters.find((one) => one.endpoint === endpoint);
  const last = attempts.at(-1);
  const resend = async () => {
    sending();
    if (letter && letter.state === "dead") {
      await api.bare(`/api/v1/dead-letters/${letter.id}/resend`);
    } else {
      await api.post("/api/v1/replay", { event_id: data.event_id, endpoint });
    }
    return t("It is being sent again");
  };
  return html`<section class="at">
    <h2><a href=${link("endpoints", endpoint)}><${Data} of=${endpoint} /></a>
      ${letter && html` <a href=${link("letters", "", { event_id: data.event_id, state: "all" })}><${Badge} of=${letter.state} /></a>`}</h2>
    <ol class="line">
      ${attempts.map((one, place) => html`<${Attempt} key=${`${one.id}/${place}`} of=${one} before=${attempts[place - 1]} url=${url} isNew=${known !== null && !known.has(one.id)} />`)}
      ${waiting.map((one) => html`<li class="wait next">${one.next_attempt_at
        ? html`${t("Next attempt")} <${Time} at=${one.next_attempt_at} ahead />`
        : t("Next attempt as soon as the endpoint takes it")}
        <span class="quiet"> ${t("parked: {0}", t(one.reason))}${one.last_failure && html`, <${Data} of=${one.last_failure} />`}</span></li>`)}
      ${waiting.length === 0 && last?.outcome === "retry" && html`<li class="wait next">${t("It is tried again in a moment")}</li>`}
    </ol>
    <div class="buttons"><${Act} label=${t("Send again")} run=${resend} done=${sent} /></div>
  </section>`;
}
