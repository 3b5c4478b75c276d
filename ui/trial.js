// A row, and what would come of it: nothing is sent.
import { html, useState } from "./preact.js";
import * as api from "./api.js";
import { Act, Badge, Body, Data, Headers, Loaded, Rows, useLoad } from "./parts.js";
import { refine } from "./route.js";
import { t } from "./words.js";

const SAYS = {
  raised: "raises the event",
  filtered: "its filter refuses the row",
  expired: "the row is too old",
  unrenderable: "it cannot be rendered",
  costly: "its filter takes more than an evaluation may",
};

export function Trial({ query }) {
  const [row, setRow] = useState("");
  const [old, setOld] = useState("");
  const [result, setResult] = useState(null);
  const load = useLoad(() => api.get("/api/v1/source"), []);
  const parse = (text, what) => {
    try {
      return JSON.parse(text);
    } catch (error) {
      throw new Error(t("{0} is no JSON: {1}", what, error.message));
    }
  };
  const run = async (more) => {
    const asked = { table: query.table || undefined, event_type: query.table ? undefined : query.event_type || undefined, op: query.op || undefined };
    if (more) Object.assign(asked, more);
    else if (row.trim() !== "") Object.assign(asked, { row: parse(row, t("The row")) }, old.trim() === "" ? {} : { old: parse(old, t("The row before")) });
    else if (query.key) asked.key = query.key;
    setResult(await api.post("/api/v1/try", Object.fromEntries(Object.entries(asked).filter(([, value]) => value !== undefined))));
  };
  const pick = (one) => {
    setRow(JSON.stringify(one, null, 2));
    return run({ row: one });
  };
  const set = (name) => (e) => refine({ ...query, [name]: e.target.value.trim() });
  return html`<div><h1>${t("Try")}</h1>
    <p class="quiet">${t("What events a row would raise, and what each endpoint would get. Nothing is sent")}.</p>
    <${Loaded} of=${load}>${({ tables }) => html`
      <form class="filters" onSubmit=${(e) => e.preventDefault()}>
        <label><span>${t("Table")}</span><select name="table" onChange=${set("table")}>
          <option value="">${t("The first")}</option>${[...new Set(tables.map((one) => one.table))].map((one) => html`<option value=${one} selected=${one === query.table}>${one}</option>`)}</select></label>
        <label><span>${t("Key")}</span><input name="key" value=${query.key ?? ""} onChange=${set("key")} /></label>
        <label><span>${t("Operation")}</span><select name="op" onChange=${set("op")}>
          <option value="">${t("All")}</option>${["insert", "update", "delete"].map((one) => html`<option value=${one} selected=${one === query.op}>${t(one)}</option>`)}</select></label>
      </form>
      <div class="pair">
        <label><span>${t("A row as JSON (else one of the table)")}</span><textarea name="row" rows="6" spellcheck=${false} value=${row} onInput=${(e) => setRow(e.target.value)}></textarea></label>
        <label><span>${t("What it was before, for an update")}</span><textarea name="old" rows="6" spellcheck=${false} value=${old} onInput=${(e) => setOld(e.target.value)}></textarea></label>
      </div>
      <div class="buttons"><${Act} label=${t("Try it")} tone="primary" run=${() => run()} /></div>`}<//>
    ${result && html`<${Results} of=${result} pick=${pick} />`}</div>`;
}

function Results({ of, pick }) {
  const columns = Object.keys(of.rows[0] ?? {}).slice(0, 6);
  return html`<section id="results">
    ${of.rows.length === 0 && html`<p class="problem">${t("There is no such row in {0}", of.table)}</p>`}
    ${of.rows.length > 1 && html`<h2>${t("Pick a row of {0}", of.table)}</h2>
      <${Rows} head=${["", ...columns]} label=${t("Rows")} rows=${of.rows.map((row, place) => ({ key: place, cells: [
        html`<${Act} small label=${t("Try it")} run=${() => pick(row)} />`, ...columns.map((name) => html`<${Data} of=${row[name]} />`)] }))} />`}
    ${of.results.map((one) => html`<section class="at"><h2><${Data} of=${one.event_type} /> <span class="quiet">${t(one.op)}</span> <${Badge} of=${one.verdict} /></h2>
      <p>${t(SAYS[one.verdict] ?? one.verdict)}${one.verdict === "raised" && one.endpoints.length === 0 ? `; ${t("no endpoint takes it")}` : ""}</p>
      ${(one.faults ?? []).map((fault) => html`<p class="problem"><${Data} of=${`${fault.event_type}, ${fault.place}: ${fault.expression}`} /> <${Data} of=${fault.what} /></p>`)}
      ${one.endpoints.map((each) => html`<details><summary><${Data} of=${each.endpoint} /></summary>
        ${each.error ? html`<p class="problem">${each.error}</p>` : html`<${Headers} of=${each.headers} /><${Body} text=${each.body} />`}</details>`)}
      ${one.more > 0 && html`<p class="quiet">${t("and {0} more endpoints", one.more)}</p>`}</section>`)}
  </section>`;
}
