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

// Greys what the filters leave out. `mask` is one bit per concept, base64, most significant bit first.
function sift(Plotly, gd, mask) {
  const points = roles(gd, "concepts");
  if (!points.length || gd.mask === mask) return;
  gd.mask = mask;
  let kept = null;
  if (mask) {
    const bits = Uint8Array.from(atob(mask), (c) => c.charCodeAt(0));
    kept = [];
    gd.concepts.forEach((concept, i) => { if (bits[concept >> 3] & (128 >> (concept & 7))) kept.push(i); });
  }
  return Plotly.restyle(gd, { selectedpoints: points.map(() => kept) }, points);
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
  const previous = root.turn ?? Promise.resolve();
  root.turn = previous.catch(() => {}).then(async () => {
    const [Plotly, gd] = await build(root, data);
    if (!root.heard) {
      root.heard = true;
      for (const event of ["plotly_afterplot", "plotly_relayouting"]) {
        gd.on(event, () => choose(gd, rings, gd.chosen ?? null));
      }
      hover(gd, root.querySelector(".ba-tip"), data);
      gd.on("plotly_click", (event) => {
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
    await colour(Plotly, gd, data.colour);
    await sift(Plotly, gd, data.mask ?? null);
    choose(gd, rings, data.concept ?? null);
    root.dataset.ready = "yes";
  }).catch((error) => {
    root.querySelector(".ba-gd").textContent =
      `This figure could not be drawn (${error.message}): reload the page; the lists beside it still work.`;
  });
}
