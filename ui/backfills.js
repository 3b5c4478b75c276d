// Backfills: rows that tables hold already, sent as events. New ones are looked at before they begin.
import { html, useRef, useState } from "./preact.js";
import * as api from "./api.js";
import { Act, Badge, Data, Dialog, Filled, Loaded, Rows, announce, useLoad, visible } from "./parts.js";
import { refine } from "./route.js";
import { number, t } from "./words.js";

// Looks that a pace is told from: half a minute of them.
const LOOKS = 15;
const EVERY = 2;

const names = (text) => text.split(/[\s,]+/).filter(Boolean);

// Tables that events are of, each once, with its event types and whether one of them asks for rows.
async function tablesOfEvents() {
  const tables = new Map();
  for (const one of (await api.get("/api/v1/source")).tables) {
    const table = tables.get(one.quoted) ?? { quoted: one.quoted, name: one.table, types: [], asking: [] };
    table.types.push(one.event_type);
    if (one.on.includes("read")) table.asking.push(one.event_type);
    tables.set(one.quoted, table);
  }
  return [...tables.values()];
}

function Offers({ of }) {
  const rowOf = (one) => ({
    key: one.table,
    cells: [
      html`<${Data} of=${one.table} />`,
      one.counted_rows == null ? t("about {0}", number(one.estimated_rows)) : number(one.counted_rows),
      html`<${Data} of=${one.event_types.join(", ")} />`,
      one.by === "key" ? t("by key") : t("as they lie in the file"),
    ],
  });
  return html`<${Rows} head=${[t("Table"), t("Rows"), t("Event types"), t("Order")]} rows=${of.map(rowOf)} label=${t("Preview")} />`;
}

function NewBackfill({ close, query }) {
  const [wish, setWish] = useState({ tables: query.backfill ? [query.backfill] : [], where: "", endpoints: query.endpoint ?? "", rate: "", by: "", as: "" });
  const known = useLoad(async () => {
    const tables = await tablesOfEvents();
    if (tables.length === 1) setWish((before) => ({ ...before, tables: [tables[0].quoted] }));
    return tables;
  }, []);
  // What was looked at, with the question as it was then: that is what begins.
  const [seen, setSeen] = useState(null);
  const turn = useRef(0);
  const change = (name, value) => {
    turn.current += 1;
    setSeen(null);
    // Other tables have other types.
    setWish((before) => ({ ...before, ...(name === "tables" ? { as: "" } : {}), [name]: value }));
  };
  const body = () => {
    const asked = { tables: wish.tables, where: wish.where.trim(), endpoints: names(wish.endpoints), rate: wish.rate === "" ? "" : Number(wish.rate), by: wish.by, as: wish.as };
    return Object.fromEntries(Object.entries(asked).filter(([name, value]) => name === "tables" || (value !== "" && value.length !== 0)));
  };
  const look = (count) => async () => {
    turn.current += 1;
    const mine = turn.current;
    const asked = body();
    const { backfills } = await api.post("/api/v1/backfills", { ...asked, dry_run: true, ...(count ? { count: true } : {}) });
    if (mine === turn.current) setSeen({ asked, backfills });
  };
  const begin = async () => {
    const { backfills } = await api.post("/api/v1/backfills", seen.asked);
    announce(t("Ordered: backfill {0}", backfills.map((one) => one.id).join(", ")));
    close();
  };
  const set = (name) => (e) => change(name, e.target.value);
  const isCounted = seen?.backfills.every((one) => one.counted_rows != null);
  const sum = seen?.backfills.reduce((all, one) => all + (one.counted_rows ?? one.estimated_rows ?? 0), 0);
  return html`<${Dialog} title=${t("A new backfill")} onClose=${close}>
    <p class="quiet">${t("Sends rows that tables hold already, as events of the operation read, in order with the changes that go on")}.</p>
    <${Loaded} of=${known}>${(tables) => {
      const meant = tables.filter((one) => wish.tables.includes(one.quoted));
      const types = [...new Set((meant.length > 0 ? meant : tables).flatMap((one) => one.types))];
      const pick = (one) => (e) => change("tables", e.target.checked ? [...wish.tables, one.quoted] : wish.tables.filter((name) => name !== one.quoted));
      return html`
        <fieldset class="choices"><legend>${t("Tables")}</legend>${tables.map((one) => html`<label key=${one.quoted} class="choice">
          <input type="checkbox" name="tables" value=${one.quoted} checked=${wish.tables.includes(one.quoted)} onChange=${pick(one)} />
          <span><${Data} of=${one.name} /> <span class="quiet"><${Data} of=${one.types.join(", ")} /></span></span></label>`)}</fieldset>
        <label><span>${t("Only rows for which this condition in SQL is true (else all)")}</span>
          <textarea name="where" rows="2" spellcheck=${false} value=${wish.where} placeholder="status = 'open'" onInput=${set("where")}></textarea></label>
        <div class="pair fields">
          <label><span>${t("Endpoints, with commas (else all that take the events)")}</span><input name="endpoints" value=${wish.endpoints} autocomplete="off" spellcheck=${false} onInput=${set("endpoints")} /></label>
          <label><span>${t("Rows a second (else as fast as they are taken)")}</span><input name="rate" type="number" min="1" max="1000000" value=${wish.rate} onInput=${set("rate")} /></label>
          <label><span>${t("Order")}</span><select name="by" onChange=${set("by")}>${[["", t("by key, if there is one")], ["key", t("by key")], ["ctid", t("as they lie in the file")]]
            .map(([value, said]) => html`<option value=${value} selected=${value === wish.by}>${said}</option>`)}</select></label>
          <label><span>${t("As events of")}</span><select name="as" onChange=${set("as")}><option value="" selected=${wish.as === ""}>${t("all types that ask for rows")}</option>${types
            .map((one) => html`<option value=${one} selected=${one === wish.as}>${visible(one)}</option>`)}</select></label>
        </div>
        ${wish.as === "" && meant.filter((one) => one.asking.length === 0).map((one) => html`<p class="quiet"><${Data} of=${one.name} />: ${t("no event type of it asks for rows (on = [\"read\"]): choose one")}</p>`)}`;
    }}<//>
    <div aria-live="polite">${seen && html`<${Offers} of=${seen.backfills} />`}</div>
    <div class="buttons">
      ${seen && html`<${Act} label=${isCounted ? t("Send {0} rows", number(sum)) : t("Send about {0} rows", number(sum))} tone="primary" disabled=${isCounted && sum === 0} run=${begin} />`}
      ${!isCounted && html`<${Act} label=${seen ? t("Count") : t("Preview")} tone=${seen ? "" : "primary"} disabled=${wish.tables.length === 0} run=${look(Boolean(seen))} />`}
      <button type="button" onClick=${close}>${t("Leave")}</button></div>
  <//>`;
}

// How fast each goes of late: an average since its start would count pauses too.
function usePace() {
  const looks = useRef(new Map());
  return (backfills) => {
    const now = Date.now();
    for (const one of backfills) {
      const before = looks.current.get(one.id) ?? [];
      if (one.state === "running") looks.current.set(one.id, [...before, { at: now, read: one.rows_read }].slice(-LOOKS));
      else looks.current.delete(one.id);
    }
    return backfills.map((one) => {
      const [first, last] = [looks.current.get(one.id)?.[0], looks.current.get(one.id)?.at(-1)];
      const pace = last && last.at > first.at ? (last.read - first.read) / ((last.at - first.at) / 1000) : null;
      return { ...one, pace };
    });
  };
}

export function Backfills({ query }) {
  const [isNew, setNew] = useState(Boolean(query.backfill));
  const paced = usePace();
  const load = useLoad(async () => paced((await api.get("/api/v1/backfills")).backfills), [], EVERY);
  const leave = () => {
    setNew(false);
    if (query.backfill) refine({ ...query, backfill: "" });
    load.again();
  };
  const act = (one, what) => async () => {
    await api.bare(`/api/v1/backfills/${one.id}/${what}`);
    load.again();
  };
  const buttons = (one) => html`
    ${one.state === "running" && html`<${Act} small label=${t("Pause")} run=${act(one, "pause")} />`}
    ${["paused", "failed"].includes(one.state) && html`<${Act} small label=${t("Resume")} run=${act(one, "resume")} />`}
    ${["running", "paused", "failed"].includes(one.state) && html` <${Act} small label=${t("Cancel")} run=${act(one, "cancel")} />`}`;
  const rowOf = (one) => ({
    key: one.id,
    cells: [
      one.id, html`<${Badge} of=${one.state} />${one.reason && html` <span class="quiet"><${Data} of=${one.reason} /></span>`}`,
      html`<${Data} of=${one.table} />${one.where && html` <span class="quiet"><${Data} of=${one.where} /></span>`}`,
      html`<${Data} of=${one.endpoints.length > 0 ? one.endpoints.join(", ") : t("all")} />${one.as && html` <span class="quiet"><${Data} of=${one.as} /></span>`}`,
      html`${number(one.rows_sent)} <span class="quiet">${t("{0} read, of about {1}", number(one.rows_read), number(one.estimated_rows ?? 0))}</span>`,
      html`<span class="word">${one.pace == null ? "–" : `${one.pace.toFixed(1)}/s`}</span>`,
      html`<${Filled} state=${one.state} part=${one.progress} left=${one.pace > 0 ? Math.max(0, (one.estimated_rows ?? 0) - one.rows_read) / one.pace : null} ended=${one.finished_at} />`,
      buttons(one),
    ],
  });
  return html`<section id="backfills"><h2>${t("Backfills")}</h2>
    <p class="quiet">${t("Rows that tables hold already, sent as events")}.</p>
    <div class="buttons"><button type="button" class="primary" onClick=${() => setNew(true)}>${t("New backfill …")}</button></div>
    <${Loaded} of=${load}>${(backfills) => html`
      <${Rows} head=${[t("Number"), t("State"), t("Table"), t("Endpoint"), t("Rows sent"), t("Rate"), t("How far"), ""]} rows=${backfills.map(rowOf)} label=${t("Backfills")} empty=${t("No rows were sent from tables yet")} />`}<//>
    ${isNew && html`<${NewBackfill} query=${query} close=${leave} />`}</section>`;
}
