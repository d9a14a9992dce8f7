// Draws a plotly figure, tells the page which concept was clicked, and shows a concept's thumbnail and words on hover.
// The figure is fetched once per URL; choosing a concept, a colouring or a filter only restyles it, so zoom survives.
const once = {};
const fetchJson = (path) => (once[path] ??= fetch(path).then((r) => {
  if (!r.ok) throw new Error(`${r.status}`);
  return r.json();
}));
const loadPlotly = (path) => (once[path] ??= new Promise((resolve, reject) => {
  if (window.Plotly) return resolve(window.Plotly);
  const script = document.createElement("script");
  script.src = path;
  script.onload = () => resolve(window.Plotly);
  script.onerror = () => reject(new Error("plotly.js did not load"));
  document.head.append(script);
}));

function themed(layout, root) {
  const style = getComputedStyle(root);
  const value = (name, other) => style.getPropertyValue(name).trim() || other;
  const text = value("--st-text-color", "#444");
  const line = value("--st-border-color", "#ddd");
  const axes = Object.fromEntries(Object.entries(layout).filter(([key]) => /^[xy]axis/.test(key)).map(
    ([key, axis]) => [key, { gridcolor: line, linecolor: line, zerolinecolor: line, ...axis }]));
  return {
    ...layout, ...axes, title: undefined, updatemenus: undefined, autosize: true, width: undefined,
    margin: { ...layout.margin, t: layout.annotations?.some((a) => a.yref === "paper" && a.yanchor === "bottom") ? 30 : 10 },
    font: { family: value("--st-font", "sans-serif"), size: 12, color: text },
    hoverlabel: { ...layout.hoverlabel, bgcolor: value("--st-background-color", "#fff"), font: { color: text } },
  };
}

const decode = (array) => {
  if (!array?.bdata) return array;
  const kinds = { u1: Uint8Array, i1: Int8Array, u2: Uint16Array, i2: Int16Array, u4: Uint32Array, i4: Int32Array,
    f4: Float32Array, f8: Float64Array };
  return new kinds[array.dtype](Uint8Array.from(atob(array.bdata), (c) => c.charCodeAt(0)).buffer);
};
const roles = (gd, role) => gd.data.flatMap((trace, i) => (trace.meta?.role === role ? [i] : []));

// Marks the chosen concept in every subplot with a ring of HTML: a trace would redraw 32,000 points for it.
function choose(gd, rings, concept) {
  gd.chosen = concept;
  const index = gd.concepts && concept !== null ? gd.concepts.indexOf(concept) : -1;
  const traces = index < 0 ? [] : roles(gd, "concepts");
  while (rings.children.length > traces.length) rings.lastChild.remove();
  while (rings.children.length < traces.length) rings.append(document.createElement("i"));
  traces.forEach((trace, i) => {
    const { xaxis, yaxis } = gd._fullData[trace];
    const [x, y] = [xaxis, yaxis].map((name, axis) => {
      const full = gd._fullLayout[name.replace(/^([xy])/, "$1axis")];
      const place = full.l2p(gd.arrays[i][axis ? "y" : "x"][index]);
      return place < 0 || place > full._length ? null : full._offset + place;
    });
    const ring = rings.children[i];
    ring.hidden = x === null || y === null;
    ring.style.transform = `translate(${x}px, ${y}px)`;
  });
}

// Greys what a selection leaves out. `mask` is one bit per concept, base64, most significant bit first.
const unpack = (mask) => Uint8Array.from(atob(mask), (c) => c.charCodeAt(0));
const holds = (bits, concept) => bits[concept >> 3] & (128 >> (concept & 7));
function pack(concepts, count) {
  const bits = new Uint8Array(Math.ceil(count / 8));
  for (const concept of concepts) bits[concept >> 3] |= 128 >> (concept & 7);
  let text = "";
  for (let i = 0; i < bits.length; i += 8192) text += String.fromCharCode(...bits.subarray(i, i + 8192));
  return btoa(text);
}
function sift(Plotly, gd, mask) {
  const points = roles(gd, "concepts");
  if (!points.length || gd.mask === mask) return;
  gd.mask = mask;
  let kept = null;
  if (mask) {
    const bits = unpack(mask);
    kept = [];
    gd.concepts.forEach((concept, i) => { if (holds(bits, concept)) kept.push(i); });
  }
  return Plotly.restyle(gd, { selectedpoints: points.map(() => kept) }, points);
}

// Lights a set in every figure of the page at once; the server answers later with the same set.
const LIGHT = "ba-light";
const light = (mask) => window.dispatchEvent(new CustomEvent(LIGHT, { detail: mask }));

// Box and lasso. What they enclose of the lit concepts becomes the selection; with Shift it joins what was chosen before.
const TOOLS = [
  ["pan", "Move the map", "M8 2v12M2 8h12M8 2 6 4M8 2l2 2M8 14l-2-2M8 14l2-2M2 8l2-2M2 8l2 2M14 8l-2-2M14 8l-2 2"],
  ["select", "Select with a box", "M3 3h2M7.2 3h2M11.4 3H13v2M13 7v2M13 11.4V13h-2M9 13H7M5 13H3v-2M3 9V7M3 5V3"],
  ["lasso", "Select with a lasso", "M6.4 11.5C4 11 2 9.400 2 7.200 2 4.500 4.700 3 8 3s6 1.500 6 4.200-2.600 4.400-6 4.400M6.400 11.500a1.500 1.500 0 1 1-2.400-1.100M5.400 12.400c.6 1-.2 1.600-.9 1.900"],
];
function offerTools(Plotly, gd, root, data, send) {
  const bar = root.querySelector(".ba-tools");
  bar.hidden = !data.lasso || !roles(gd, "concepts").length;
  if (bar.hidden || bar.children.length) return;
  const press = (mode) => {
    root.mode = mode;
    [...bar.children].forEach((button) => button.setAttribute("aria-pressed", button.dataset.mode === mode));
    return Plotly.relayout(gd, { dragmode: mode });
  };
  for (const [mode, title, path] of TOOLS) {
    const button = Object.assign(document.createElement("button"), { type: "button", title });
    button.dataset.mode = mode;
    button.setAttribute("aria-label", title);
    button.setAttribute("aria-pressed", mode === "pan");
    button.innerHTML = `<svg viewBox="0 0 16 16" aria-hidden="true"><path d="${path}"/></svg>`;
    button.onclick = () => press(mode);
    bar.append(button);
  }
  placeTools(gd, root);
  root.addEventListener("pointerdown", (event) => { root.joining = event.shiftKey; }, true);
  gd.on("plotly_selected", (event) => {
    if (!event) return;
    const before = gd.mask ?? null;
    const bits = before && !root.joining ? unpack(before) : null;
    const chosen = new Set(event.points.filter((p) => gd.data[p.curveNumber].meta?.role === "concepts")
      .map((p) => Number(p.customdata)).filter((concept) => !bits || holds(bits, concept)));
    gd.mask = undefined;
    Plotly.relayout(gd, { selections: [] }).then(() => {
      const mask = chosen.size ? pack(chosen, root.given.count) : before;
      if (!root.joining || !before) light(mask);
      else gd.mask = undefined;
      if (chosen.size) send({ bits: pack(chosen, root.given.count), add: Boolean(root.joining) });
    });
  });
  gd.on("plotly_deselect", () => { if (gd.mask) send("all"); });
}

// The tools stand in the corner of the first panel.
function placeTools(gd, root) {
  const { xaxis, yaxis } = gd._fullLayout;
  if (!xaxis || !yaxis) return;
  Object.assign(root.querySelector(".ba-tools").style, { left: `${xaxis._offset + 8}px`, top: `${yaxis._offset + 8}px` });
}

// While someone types into the search box, what fits lights up; Enter makes it the selection. `data.base`: all other
// parts of the selection.
function lightTyped(root, event) {
  const box = event.target;
  if (!box.matches?.(".st-key-w_text input") || !root.isConnected || !root.given.facts || !root.given.lasso) return;
  clearTimeout(root.typing);
  root.typing = setTimeout(async () => {
    const known = await fetchJson(root.given.facts).catch(() => null);
    if (!known) return;
    const terms = box.value.toLowerCase().match(/[\p{L}\p{N}_]+/gu) ?? [];
    const base = root.given.base ? unpack(root.given.base) : null;
    if (!terms.length) return light(root.given.base ?? null);
    const found = known.label.flatMap((label, concept) => {
      if (base && !holds(base, concept)) return [];
      const text = `${label} ${known.words[concept]} ${known.more[concept]}`.toLowerCase();
      return terms.every((term) => text.includes(term) || String(concept) === term) ? [concept] : [];
    });
    light(pack(found, root.given.count));
  }, 150);
}

function colour(Plotly, gd, name) {
  if (!name || gd.colouring === name) return;
  const button = gd.menus?.[0]?.buttons.find((b) => b.label === name);
  if (!button) return;
  gd.colouring = name;
  const [settings, traces] = structuredClone(button.args);
  settings["marker.color"] = settings["marker.color"].map(decode);
  if (gd.narrow) settings["marker.showscale"] = false;
  return Plotly.restyle(gd, settings, traces);
}

// The card that follows the pointer: thumbnail, label, words. Silent when its data is not there.
function hover(gd, tip, data) {
  gd.on("plotly_hover", async (event) => {
    const concept = event.points[0]?.customdata;
    if (!data.facts || gd.data[event.points[0].curveNumber].meta?.role !== "concepts") return;
    const facts = await fetchJson(data.facts).catch(() => null);
    const box = gd.getBoundingClientRect();
    const x = event.event.clientX - box.left;
    const y = event.event.clientY - box.top;
    tip.replaceChildren();
    const image = data.best ? document.createElement("img") : "";
    if (image) {
      image.src = data.best.replace("CONCEPT", concept);
      image.onerror = () => image.remove();
    }
    const lines = document.createElement("div");
    for (const text of [facts?.label[concept] || `Concept ${concept}`, facts?.words[concept], `#${concept}`]) {
      if (text) lines.append(Object.assign(document.createElement("span"), { textContent: text }));
    }
    tip.append(image, lines);
    tip.style.left = `${Math.min(x + 16, box.width - 236)}px`;
    tip.style.top = `${y > box.height - 110 ? y - 100 : y + 16}px`;
    tip.hidden = false;
  });
  gd.on("plotly_unhover", () => { tip.hidden = true; });
}

// The ranges of delta that a bar or a cell stands for, as an address says them.
function rangesOf(meta, point) {
  if (meta?.role !== "range") return null;
  const ends = meta.half ? [point.x, point.y].map((v) => [v - meta.half, v + meta.half]) : [point.customdata];
  const words = meta.models.map((model, i) => [model, ...meta.of ?? [], ...ends[i].map((end) => Number(end.toFixed(4)))].join(":"));
  return words.join(",");
}

const NARROW = 560;
const isNarrow = (root) => root.clientWidth < NARROW;
const height = (root, data, wanted) => (isNarrow(root) ? data.narrow?.height ?? Math.min(wanted, 430) : wanted);

async function build(root, data) {
  const narrow = isNarrow(root);
  const url = (narrow && data.narrow?.url) || data.url;
  const [Plotly, figure] = await Promise.all([
    loadPlotly(data.plotly), url ? fetchJson(url) : JSON.parse(data.figure)]);
  const gd = root.querySelector(".ba-gd");
  const identity = url ?? data.figure;
  if (root.drawn === identity && root.theme === data.theme) return [Plotly, gd];
  const fresh = structuredClone(figure);
  if (narrow) {
    fresh.data.forEach((t) => { if (t.marker?.colorbar) t.marker.showscale = false; });
  }
  const range = root.drawn && data.keep ? [gd.layout.xaxis.range, gd.layout.yaxis.range] : null;
  root.drawn = identity;
  root.theme = data.theme;
  const layout = themed(fresh.layout, root);
  if (narrow) {
    layout.margin.r = 8;
    for (const [axis, other] of Object.entries(fresh.layout.meta?.narrow ?? {})) Object.assign(layout[axis], other);
  }
  layout.height = height(root, data, fresh.layout.height);
  if (range) [layout.xaxis.range, layout.yaxis.range] = range;
  await Plotly.react(gd, fresh.data, layout, {
    displaylogo: false, responsive: true, scrollZoom: Boolean(data.zoom), doubleClick: "reset",
    displayModeBar: data.zoom ? "hover" : false, modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
    toImageButtonOptions: { scale: 2, filename: "blindspot-atlas" },
  });
  gd.narrow = narrow;
  gd.menus = fresh.layout.updatemenus ?? figure.layout.updatemenus;
  gd.mask = gd.colouring = undefined;
  if (root.mode) await Plotly.relayout(gd, { dragmode: root.mode });
  const points = roles(gd, "concepts");
  if (points.length) {
    gd.concepts = Array.from(decode(figure.data[points[0]].customdata));
    gd.arrays = points.map((i) => ({ x: decode(figure.data[i].x), y: decode(figure.data[i].y) }));
  }
  return [Plotly, gd];
}

export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector(".ba-plot");
  if (data.height) root.style.minHeight = `${height(root, data, data.height)}px`;
  const rings = root.querySelector(".ba-rings");
  root.given = data;
  const previous = root.turn ?? Promise.resolve();
  root.turn = previous.catch(() => {}).then(async () => {
    const [Plotly, gd] = await build(root, data);
    if (!root.heard) {
      root.heard = true;
      for (const event of ["plotly_afterplot", "plotly_relayouting"]) {
        gd.on(event, () => choose(gd, rings, gd.chosen ?? null));
      }
      gd.on("plotly_afterplot", () => placeTools(gd, root));
      hover(gd, root.querySelector(".ba-tip"), data);
      window.addEventListener(LIGHT, ({ detail }) => { if (root.isConnected && root.given.lasso) sift(Plotly, gd, detail); });
      document.addEventListener("input", (event) => lightTyped(root, event), true);
      gd.on("plotly_click", (event) => {
        const ranges = event.points.map((p) => rangesOf(gd.data[p.curveNumber].meta, p)).find(Boolean);
        if (ranges && root.given.lights) return window.blindspotVisit(root.given.lights.replace("RANGES", encodeURIComponent(ranges)));
        const point = event.points.find((p) => gd.data[p.curveNumber].meta?.role === "concepts");
        if (!point) return;
        const concept = Number(point.customdata);
        root.pick(concept);
        if (gd.narrow) setTimeout(() => document.querySelector(".st-key-card")?.scrollIntoView({ behavior: "smooth" }), 600);
        choose(gd, rings, concept);
      });
    }
    root.pick = (concept) => {
      if (data.opens) window.blindspotVisit(data.opens.replace("CONCEPT", concept));
      else setTriggerValue("pick", { concept });
    };
    root.send = (value) => setTriggerValue("select", value);
    offerTools(Plotly, gd, root, data, (value) => root.send(value));
    await colour(Plotly, gd, data.colour);
    await sift(Plotly, gd, data.mask ?? null);
    choose(gd, rings, data.concept ?? null);
    root.dataset.ready = "yes";
  }).catch((error) => {
    root.querySelector(".ba-gd").textContent =
      `This figure could not be drawn (${error.message}): reload the page; the lists beside it still work.`;
  });
}
