// What several screens are made of.
import { html, useCallback, useEffect, useRef, useState } from "./preact.js";
import { refine } from "./route.js";
import { number, span, t } from "./words.js";

// What would not be seen, or would turn other text around, is shown as its number.
const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g;
export const visible = (text) => String(text).replace(UNSEEN, (one) => `\\u{${one.codePointAt(0).toString(16)}}`);

// Values of rows are foreign: shown as text, and in a direction of their own.
export const Data = ({ of, word }) => html`<bdi class="data ${word ? "word" : ""}">${of == null ? "–" : visible(of)}</bdi>`;

// Loads now, again when `what` changes, every so many seconds, and when somebody presses r.
export function useLoad(load, what, every) {
  const [state, setState] = useState({ data: null, error: null, loading: true });
  const turn = useRef(0);
  const again = useCallback(async () => {
    turn.current += 1;
    const mine = turn.current;
    setState((before) => ({ ...before, loading: true }));
    try {
      const data = await load();
      if (mine === turn.current) setState({ data, error: null, loading: false });
    } catch (error) {
      if (mine === turn.current) setState((before) => ({ ...before, error, loading: false }));
    }
  }, what);
  useEffect(() => {
    again();
    addEventListener("walhook:reload", again);
    const timer = every ? setInterval(() => document.visibilityState === "visible" && again(), every * 1000) : null;
    return () => {
      removeEventListener("walhook:reload", again);
      clearInterval(timer);
      turn.current += 1;
    };
  }, [again]);
  return { ...state, again };
}

// What a screen shows of a load: the words of an error, and that it is on its way.
export function Loaded({ of, children }) {
  const { data, error } = of;
  if (error && !data) return html`<p class="problem" role="alert">${visible(error.message)}</p>`;
  if (!data) return html`<p class="quiet" aria-busy="true">${t("Loading")} …</p>`;
  const stale = error && html`<p class="problem" role="alert">${visible(error.message)}. ${t("What is shown may be old")}.</p>`;
  // One element, whatever it holds: what comes later is put in its place.
  return html`<div>${stale}${children(data)}</div>`;
}

// A moment: how long ago, and exactly on hovering.
export function Time({ at, ahead }) {
  if (!at) return html`<span class="quiet">–</span>`;
  const moment = typeof at === "number" ? new Date(at) : new Date(at);
  const seconds = (Date.now() - moment.getTime()) / 1000;
  const said = seconds >= 0 && !(ahead && seconds < 0) ? t("{0} ago", span(seconds)) : t("in {0}", span(-seconds));
  return html`<time datetime=${moment.toISOString()} title=${moment.toISOString()}>${said}</time>`;
}

export const clock = (at) => {
  const moment = new Date(at);
  const two = (n) => String(n).padStart(2, "0");
  return `${two(moment.getHours())}:${two(moment.getMinutes())}:${two(moment.getSeconds())}.${String(moment.getMilliseconds()).padStart(3, "0")}`;
};

const TONES = {
  delivered: "good", dead: "bad", failed: "bad", retry: "warn", ok: "good", warning: "warn", problem: "bad", running: "warn", done: "good",
  enabled: "good", delivering: "good", paused: "warn", disabled: "quiet", gone: "bad", refused: "bad", removing: "warn",
  requested: "warn", resending: "warn", expired: "quiet", discarded: "quiet", cancelled: "quiet", raised: "good",
  filtered: "quiet", unrenderable: "bad", costly: "bad", "out of order": "bad", behind: "warn",
};
export const Badge = ({ of, tone }) => html`<span class="badge ${tone ?? TONES[of] ?? "quiet"}">${t(of)}</span>`;

export const Copy = ({ text, label }) => {
  const [done, setDone] = useState(false);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // Without a secure context there is no clipboard: the old way.
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    setDone(true);
    setTimeout(() => setDone(false), 1500);
  };
  return html`<button class="small" type="button" onClick=${copy}>${done ? t("Copied") : (label ?? t("Copy"))}</button>`;
};

// A body: read as JSON where it is some, and as it is.
export function Body({ text, name }) {
  const [raw, setRaw] = useState(false);
  if (text == null) return html`<p class="quiet">${t("Not kept")}. ${t("Bodies of delivered events are kept with [push_log] bodies = \"all\"")}.</p>`;
  if (text === "") return html`<p class="quiet">${t("Empty")}</p>`;
  let pretty = null;
  try {
    pretty = JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    pretty = null;
  }
  const shown = raw || pretty === null ? text : pretty;
  return html`<div class="body">
    <div class="tools">
      ${pretty !== null && html`<button class="small" type="button" aria-pressed=${raw} onClick=${() => setRaw(!raw)}>${raw ? t("Pretty") : t("Raw")}</button>`}
      <${Copy} text=${text} />
    </div>
    <pre tabindex="0" aria-label=${name ?? t("Body")}><bdi>${visible(shown)}</bdi></pre>
  </div>`;
}

export function Headers({ of }) {
  const pairs = Object.entries(of ?? {});
  if (pairs.length === 0) return html`<p class="quiet">${t("None")}</p>`;
  return html`<dl class="headers">${pairs.map(([name, value]) => html`<dt>${name}</dt><dd><${Data} of=${String(value)} /></dd>`)}</dl>`;
}

// Fields that stand in the address. `fields`: name, label, and a list of choices where there are some.
export function Filters({ fields, query, children }) {
  const set = (name, value) => {
    const next = { ...query, [name]: value };
    delete next.cursor;
    refine(next);
  };
  const field = ({ name, label, choices, kind, wide }) => html`<label class=${wide ? "wide" : ""}>
    <span>${label}</span>
    ${choices
      ? html`<select name=${name} value=${query[name] ?? ""} onChange=${(e) => set(name, e.target.value)}>
          ${choices.map(([value, said]) => html`<option value=${value} selected=${value === (query[name] ?? "")}>${said}</option>`)}
        </select>`
      : html`<input name=${name} type=${kind ?? "text"} value=${query[name] ?? ""} autocomplete="off" spellcheck=${false}
          onChange=${(e) => set(name, e.target.value.trim())} />`}
  </label>`;
  const isSet = fields.some(({ name }) => query[name]);
  return html`<form class="filters" role="search" onSubmit=${(e) => e.preventDefault()}>
    ${fields.map(field)}
    <div class="tools">
      ${children}
      ${isSet && html`<button class="small" type="button" onClick=${() => refine({})}>${t("Clear filters")}</button>`}
    </div>
  </form>`;
}

// Something to be confirmed. The browser keeps the focus inside, and Escape leaves.
export function Dialog({ title, onClose, children }) {
  const box = useRef(null);
  useEffect(() => {
    const dialog = box.current;
    const before = document.activeElement;
    dialog.showModal();
    return () => {
      if (dialog.open) dialog.close();
      before?.focus?.();
    };
  }, []);
  return html`<dialog ref=${box} aria-label=${title} onCancel=${(e) => { e.preventDefault(); onClose(); }}>
    <h2>${title}</h2>
    ${children}
  </dialog>`;
}

// One button that does something, says so, and tells what went wrong.
export function Act({ label, tone, run, done, disabled, small }) {
  const [state, setState] = useState(null);
  const act = async () => {
    setState({ busy: true });
    try {
      const said = await run();
      setState(null);
      if (said !== undefined) announce(said);
      done?.();
    } catch (error) {
      setState({ error });
    }
  };
  return html`<span class="act"><button type="button" class="${tone ?? ""} ${small ? "small" : ""}" disabled=${disabled || state?.busy} onClick=${act}>${label}</button>
    ${state?.error && html`<span class="problem" role="alert">${visible(state.error.message)}</span>`}</span>`;
}

export function announce(text) {
  dispatchEvent(new CustomEvent("walhook:said", { detail: text }));
}

// Rows that can be gone through by j and k, and opened by o.
export function Rows({ head, rows, empty, label }) {
  if (rows.length === 0) return html`<p class="quiet empty">${empty ?? t("Nothing here")}</p>`;
  return html`<div class="scroller"><table aria-label=${label}>
    <thead><tr>${head.map((name) => html`<th scope="col">${name}</th>`)}</tr></thead>
    <tbody>${rows.map(({ key, cells, href, tone }) => html`<tr key=${key} tabindex="-1" class="row ${tone ?? ""}" data-href=${href ?? null}>
      ${cells.map((cell, place) => html`<td data-label=${head[place]}>${cell}</td>`)}</tr>`)}</tbody>
  </table></div>`;
}

// How far something is: a part of it and the time that is left while it runs, and when it ended.
export function Filled({ state, part, left, ended }) {
  if (!["running", "paused"].includes(state)) return html`${t("ended")} <${Time} at=${ended} />`;
  const share = Math.max(0, Math.min(1, part ?? 0));
  return html`<progress max="1" value=${share} aria-label=${t("How far")}></progress> ${(100 * share).toFixed(0)} %${state === "running" && left != null && html`, ${t("{0} to go", span(left))}`}`;
}

export const Tile = ({ label, children, note, tone, href }) => html`<div class="tile ${tone ?? ""}">
  <span class="label">${href ? html`<a href=${href}>${label}</a>` : label}</span>
  <strong>${children}</strong>
  ${note && html`<span class="note">${note}</span>`}
</div>`;

export const Count = ({ of, one, many }) => html`${t(of === 1 ? one : many, number(of))}`;

export const SINCE = () => [["", t("Last hour")], ["15m", t("Last 15 minutes")], ["6h", t("Last 6 hours")], ["24h", t("Last day")], ["7d", t("Last 7 days")], ["all", t("All")]];

// The time range that the filters say: `since` for a span up to now, or exact moments.
export function range(query, standard = "1h") {
  if (query.from || query.before) return { from: moment(query.from), before: moment(query.before) };
  const since = query.since || standard;
  const read = /^(\d+)([mhd])$/.exec(since);
  if (!read) return {};
  const seconds = Number(read[1]) * { m: 60, h: 3600, d: 86400 }[read[2]];
  return { from: new Date(Date.now() - seconds * 1000).toISOString() };
}

// What a field of a date and a time holds is in the reader's own time.
export function moment(text) {
  if (!text) return undefined;
  const read = new Date(text);
  return Number.isNaN(read.getTime()) ? text : read.toISOString();
}
