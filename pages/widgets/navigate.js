// One step forward is one step back, and Back returns to where the person had scrolled. `blindspotVisit(address)` goes to
// another page as a plain link would, without loading the app anew: one entry in the history, told to Streamlit as if the
// person had come by it. Streamlit makes more entries than steps (the page, then its parameters; a cleaned URL): what a
// gesture has led to is one entry, later ones replace it. Streamlit scrolls an element of its own, which browsers do not
// remember: the entry that is left keeps its place.
window.blindspotVisit ??= (() => {
  const main = () => document.querySelector("[data-testid=stMain]");
  const push = history.pushState.bind(history);
  const PATIENCE = 8000;
  let gesture = false;
  let top = 0;
  let returning = null;
  history.pushState = (state, unused, address) => {
    if (!gesture) return history.replaceState(state, unused, address);
    gesture = false;
    history.replaceState({ ...history.state, top }, "");
    return push(state, unused, address);
  };
  const acts = (kinds, does) => kinds.forEach((kind) => addEventListener(kind, does, { capture: true, passive: true }));
  acts(["pointerdown", "keydown", "click"], () => { gesture = true; top = main()?.scrollTop ?? 0; });
  acts(["pointerdown", "keydown", "wheel", "touchstart"], () => clearInterval(returning));
  addEventListener("popstate", ({ state }) => {
    clearInterval(returning);
    if (!state?.top) return;
    const end = performance.now() + PATIENCE;
    returning = setInterval(() => {
      const shown = main();
      if (shown && shown.scrollTop !== state.top) shown.scrollTop = state.top;
      if (performance.now() > end) clearInterval(returning);
    }, 50);
  });
  // "/" searches, Escape closes what is open, arrows go through the selection.
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (event.target.closest?.("input, textarea, select, [contenteditable], [role=slider], [role=radio], [role=tab], [role=listbox], [role=dialog]")) return;
    const press = (selector) => { const found = document.querySelector(selector); found?.click(); return Boolean(found); };
    if (event.key === "/") {
      const box = document.querySelector(".st-key-w_text input");
      if (!box) return;
      event.preventDefault();
      box.focus();
      box.select();
    } else if (event.key === "Escape" && !document.querySelector("[data-testid=stPopoverBody]")) {
      press(".st-key-card .ba-image .ba-close") || press(".st-key-card .ba-close");
    } else if (event.key === "ArrowLeft") press(".st-key-card [data-step=before]");
    else if (event.key === "ArrowRight") press(".st-key-card [data-step=after]");
  });
  return (target) => {
    const address = window.blindspotCarry(target);
    history.pushState({}, "", address);
    dispatchEvent(new PopStateEvent("popstate"));
  };
})();
// A link to a page that shows the selection takes along what this page's address says of it and the link does not.
window.blindspotCarry ??= (address) => {
  const target = new URL(address, location.href);
  const here = new URLSearchParams(location.search);
  if (!/\/(concept_map|blindspots|compare|generate)$/.test(target.pathname)) return address;
  for (const name of ["text", "status", "frequency", "q", "cluster", "within", "ids"]) {
    if (here.has(name) && !target.searchParams.has(name)) target.searchParams.set(name, here.get(name));
  }
  return target.href;
};
