"use strict";
// Everything is written with textContent: nothing a provider or caller said can become markup here.
const el = (tag, text, cls) => { const e = document.createElement(tag); e.textContent = text ?? ""; if (cls) e.className = cls; return e; };
const row = (...cells) => { const tr = document.createElement("tr"); for (const c of cells) { if (c instanceof Node) { const td = el("td"); td.append(c); tr.append(td); } else tr.append(el("td", c)); } return tr; };
const pill = (state) => el("span", state, "pill " + ({ ok: "ok", ready: "ok", closed: "ok", degraded: "degraded", "half-open": "degraded", half_open: "degraded", cooling: "degraded", failed: "failed", open: "failed", "not ready": "failed" }[state] ?? ""));
const ms = (v) => v == null ? "–" : v < 10 ? v.toFixed(1) + " ms" : Math.round(v) + " ms";
const put = (id, nodes) => document.getElementById(id).replaceChildren(...nodes);
const ago = (s) => s == null ? "–" : s < 90 ? Math.round(s) + " s" : s < 5400 ? Math.round(s / 60) + " min" : Math.round(s / 3600) + " h";

// The token lives in this tab only and travels as a bearer token: there is no cookie that another page could use.
const KEY = "readygate.admin";
const byId = (id) => document.getElementById(id);
class SignIn extends Error {}
async function get(path) {
  const token = sessionStorage.getItem(KEY);
  const r = await fetch(path, token ? { headers: { authorization: "Bearer " + token } } : {});
  if (r.status === 401 || r.status === 429) throw new SignIn(r.status === 429 ? "Too many wrong tokens; wait a minute." : token ? "This token is not accepted." : "");
  return r.json();
}
function askForToken(why) {
  sessionStorage.removeItem(KEY);
  byId("signin").hidden = false; byId("signout").hidden = true; document.querySelector("main").hidden = true;
  byId("wrong").textContent = why;
  for (const id of ["traffic", "providers", "components"]) put(id, []);
  byId("state").replaceWith(Object.assign(pill("locked"), { id: "state" }));
  byId("about").textContent = "";
}
byId("signin").addEventListener("submit", (e) => { e.preventDefault(); sessionStorage.setItem(KEY, byId("token").value.trim()); byId("token").value = ""; show(); });
byId("signout").addEventListener("click", () => askForToken(""));

async function show() {
  if (!byId("signin").hidden && !sessionStorage.getItem(KEY)) return;
  try {
    const summary = await get("/summary");  // alone first: a wrong token is one wrong try, not three
    const [health, providers] = await Promise.all(["/health", "/providers"].map(get));
    byId("signin").hidden = true; byId("signout").hidden = !sessionStorage.getItem(KEY); document.querySelector("main").hidden = false;
    const state = document.getElementById("state");
    state.replaceWith(Object.assign(pill(health.status), { id: "state" }));
    document.getElementById("about").textContent = summary.about;
    put("traffic", Object.entries(summary.traffic).map(([k, v]) => { const c = el("div", "", "card"); c.append(el("b", String(v)), el("span", k.replaceAll("_", " "))); return c; }));
    put("providers", Object.entries(providers.providers).map(([name, p]) => row(name, pill(p.state), p.success_ratio == null ? "–" : (100 * p.success_ratio).toFixed(1) + " %", ms(p.p50_ms), ms(p.p95_ms), p.last_outcome ?? "–",
      (p.budgets ?? []).map((b) => `${b.dimension.replaceAll("_", " ")}: ${b.remaining}/${b.limit}`).join(", ") || "–")));
    put("components", Object.entries(health.components).map(([name, c]) => row(name, pill(c.state), ago(c.for_s), c.reason ?? "")));
  } catch (e) {
    if (e instanceof SignIn) return askForToken(e.message);
    document.getElementById("state").replaceWith(Object.assign(pill("failed"), { id: "state" }));
    document.getElementById("about").textContent = "No answer from the sidecar.";
  }
}
show();
setInterval(show, 2000);
