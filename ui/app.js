// The page: which screen is shown, the way between them, the keyboard, and the token.
import { html, render, useEffect, useState } from "./preact.js";
import * as api from "./api.js";
import { Dialog } from "./parts.js";
import { go, link, useRoute } from "./route.js";
import { language, switchLanguage, t } from "./words.js";
import { Overview } from "./overview.js";
import { Events } from "./events.js";
import { Event } from "./event.js";
import { Endpoints, Endpoint } from "./endpoints.js";
import { Letters } from "./letters.js";
import { Replays } from "./replays.js";
import { Source } from "./source.js";
import { Trial } from "./trial.js";
import { Types } from "./types.js";

const SCREENS = [
  ["overview", t("Overview"), Overview],
  ["events", t("Events"), Events],
  ["endpoints", t("Endpoints"), Endpoints],
  ["letters", t("Dead letters"), Letters],
  ["replays", t("Replays"), Replays],
  ["source", t("Source"), Source],
  ["try", t("Try"), Trial],
  ["types", t("Event types"), Types],
];

// Those that a name leads to, each on the way of another screen.
const NAMED = { event: ["events", Event], endpoints: ["endpoints", Endpoint] };

function Login({ done }) {
  const [error, setError] = useState(null);
  const enter = async (e) => {
    e.preventDefault();
    try {
      await api.post("/login", { token: new FormData(e.target).get("token") });
      done();
    } catch (refused) {
      setError(refused);
    }
  };
  return html`<main class="login"><form onSubmit=${enter}>
    <h1>walhook</h1>
    <label><span>${t("Token")}</span><input name="token" type="password" autocomplete="current-password" required autofocus /></label>
    <button class="primary">${t("Enter")}</button>
    <p class="quiet">${t("The token stands in [http] token of the configuration. The browser keeps a cookie that no script can read")}.</p>
    ${error && html`<p class="problem" role="alert">${error.message}</p>`}
  </form></main>`;
}

const KEYS = () => [
  ["/", t("To the first filter")], ["j", t("Next row")], ["k", t("Row before")], ["o", t("Open the row")],
  ["r", t("Load again")], ["1 – 8", t("Screens in their order")], ["?", t("These keys")], ["Esc", t("Leave")],
];

function step(by) {
  const rows = [...document.querySelectorAll("main tr.row")];
  if (rows.length === 0) return;
  const at = rows.indexOf(document.activeElement?.closest?.("tr.row"));
  const next = rows[Math.max(0, Math.min(rows.length - 1, at < 0 ? 0 : at + by))];
  next.focus();
  next.scrollIntoView({ block: "nearest" });
}

function onKey(e, showKeys) {
  if (e.ctrlKey || e.metaKey || e.altKey) return;
  const isTyping = e.target.closest?.("input, textarea, select, [contenteditable]");
  if (isTyping) {
    if (e.key === "Escape") e.target.blur();
    return;
  }
  if (document.querySelector("dialog[open]")) return;
  const row = document.activeElement?.closest?.("tr.row");
  const acts = {
    "/": () => document.querySelector("main .filters input, main .filters select")?.focus(),
    j: () => step(1),
    k: () => step(-1),
    o: () => row?.dataset.href && (location.hash = row.dataset.href),
    Enter: () => e.target === row && row?.dataset.href && (location.hash = row.dataset.href),
    r: () => dispatchEvent(new Event_("walhook:reload")),
    "?": () => showKeys(true),
  };
  const screen = SCREENS[Number(e.key) - 1];
  const act = acts[e.key] ?? (screen && (() => go(screen[0])));
  if (!act) return;
  if (e.key !== "Enter") e.preventDefault();
  act();
}

// `Event` is a screen here.
const Event_ = globalThis.Event;

function Page() {
  const route = useRoute();
  const [wanted, setWanted] = useState(false);
  const [keys, showKeys] = useState(false);
  const [said, setSaid] = useState("");
  const [health, setHealth] = useState(null);
  useEffect(() => {
    api.whenTokenIsWanted(() => setWanted(true));
    const pressed = (e) => onKey(e, showKeys);
    const heard = (e) => {
      setSaid(e.detail);
      setTimeout(() => setSaid((now) => (now === e.detail ? "" : now)), 6000);
    };
    addEventListener("keydown", pressed);
    addEventListener("walhook:said", heard);
    return () => {
      removeEventListener("keydown", pressed);
      removeEventListener("walhook:said", heard);
    };
  }, []);
  useEffect(() => {
    if (wanted) return undefined;
    let over = false;
    const look = async () => {
      try {
        const status = await api.get("/api/v1/status");
        if (!over) setHealth({ status });
      } catch (error) {
        if (!over) setHealth((before) => ({ ...before, error }));
      }
    };
    look();
    const timer = setInterval(() => document.visibilityState === "visible" && look(), 5000);
    addEventListener("walhook:reload", look);
    return () => {
      over = true;
      clearInterval(timer);
      removeEventListener("walhook:reload", look);
    };
  }, [wanted]);
  const named = route.name ? NAMED[route.screen] : null;
  const at = named ? named[0] : route.screen;
  const screen = named ? named[1] : (SCREENS.find(([name]) => name === route.screen)?.[2] ?? Overview);
  useEffect(() => {
    const title = SCREENS.find(([name]) => name === at)?.[1] ?? "";
    const problems = health?.status?.problems.length ?? 0;
    document.title = `${problems > 0 ? `(${problems}) ` : ""}${title}${route.name ? ` · ${route.name}` : ""} · walhook`;
  }, [at, route.name, health]);
  if (wanted) return html`<${Login} done=${() => setWanted(false)} />`;
  return html`<div>
    <a class="skip" href="#main" onClick=${(e) => { e.preventDefault(); document.querySelector("main").focus(); }}>${t("To the content")}</a>
    <header>
      <a class="brand" href=${link("overview")}>walhook</a>
      <nav aria-label=${t("Screens")}>${SCREENS.map(([name, label]) => html`<a href=${link(name)} aria-current=${name === at ? "page" : null}>${label}</a>`)}</nav>
      <span class="tools">
        <${Health} of=${health} />
        <button class="small" type="button" onClick=${() => showKeys(true)} aria-label=${t("Keys")}>?</button>
        <button class="small" type="button" onClick=${switchLanguage} lang=${language === "zh" ? "en" : "zh-Hans"}>${language === "zh" ? "English" : "中文"}</button>
      </span>
    </header>
    <main id="main" tabindex="-1"><${screen} key=${`${route.screen}/${route.name}`} name=${route.name} query=${route.query} health=${health} /></main>
    <p class="said" role="status" aria-live="polite">${said}</p>
    ${keys && html`<${Dialog} title=${t("Keys")} onClose=${() => showKeys(false)}>
      <dl class="keys">${KEYS().map(([key, does]) => html`<dt><kbd>${key}</kbd></dt><dd>${does}</dd>`)}</dl>
      <div class="buttons"><button type="button" onClick=${() => showKeys(false)}>${t("Close")}</button></div>
    <//>`}</div>`;
}

function Health({ of }) {
  if (!of) return null;
  if (of.error) return html`<span class="badge bad" role="alert">${t("no answer")}</span>`;
  const problems = of.status.problems.length;
  return problems === 0
    ? html`<span class="badge good">${t("well")}</span>`
    : html`<a class="badge bad" href=${link("overview")}>${t(problems === 1 ? "{0} problem" : "{0} problems", problems)}</a>`;
}

render(html`<${Page} />`, document.getElementById("app"));
