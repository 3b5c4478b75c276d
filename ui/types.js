// The catalogue: each event type, and what its bodies look like.
import { html } from "./preact.js";
import * as api from "./api.js";
import { Copy, Data, Filters, Loaded, useLoad } from "./parts.js";
import { link } from "./route.js";
import { t } from "./words.js";

export function Types({ query }) {
  const load = useLoad(() => api.get("/api/v1/event-types"), []);
  const fields = [{ name: "name", label: t("Name") }];
  const meant = (one) => !query.name || one.type.toLowerCase().includes(query.name.toLowerCase());
  const text = (schema) => JSON.stringify(schema, null, 2);
  return html`<div><h1>${t("Event types")}</h1>
    <p class="quiet">${t("What receivers get, derived from the tables as they are. The same is written by: walhook schema")}.</p>
    <${Filters} fields=${fields} query=${query} />
    <${Loaded} of=${load}>${({ event_types: types }) => types.filter(meant).map((one) => html`<section class="at" key=${one.type}>
      <h2><a href=${link("events", "", { event_type: one.type })}><${Data} of=${one.type} /></a></h2>
      <dl class="facts"><dt>${t("Table")}</dt><dd><a href=${link("try", "", { table: one.table })}><${Data} of=${one.table} /></a></dd>
        <dt>${t("Raised by")}</dt><dd>${one.on.map((op) => t(op)).join(", ")}</dd></dl>
      ${one.schema === null ? html`<p class="problem">${t("There is no such table")}</p>` : html`<details><summary>JSON Schema</summary>
        <div class="tools"><${Copy} text=${text(one.schema)} /></div><pre tabindex="0"><bdi>${text(one.schema)}</bdi></pre></details>`}
      ${Object.entries(one.own_schemas).map(([name, schema]) => html`<details key=${name}><summary>${t("In the shape of its own, for")} <${Data} of=${name} /></summary>
        <div class="tools"><${Copy} text=${text(schema)} /></div><pre tabindex="0"><bdi>${text(schema)}</bdi></pre></details>`)}
    </section>`)}<//></div>`;
}
