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
  return (address) => {
    history.pushState({}, "", address);
    dispatchEvent(new PopStateEvent("popstate"));
  };
})();
