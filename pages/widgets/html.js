// Shows HTML and follows clicks on [data-go], to another page in the browser (`navigate.js`); keeps the heat-map opacity in the browser. On a narrow screen, where what
// was clicked may stand far above, a changed [data-arrive] scrolls into view.
export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector(".ba-live");
  if (root.shownHtml !== data.html) {
    root.innerHTML = data.html;
    root.shownHtml = data.html;
  }
  const arrived = root.querySelector("[data-arrive]")?.dataset.arrive;
  if (root.arrived && arrived && arrived !== root.arrived && window.innerWidth < 720) root.scrollIntoView({ behavior: "smooth" });
  root.arrived = arrived;
  const heat = Number(sessionStorage.getItem("ba-heat") ?? 0.4);
  const fade = (value) => {
    document.documentElement.style.setProperty("--ba-heat", value);
    root.querySelectorAll("[data-heat]").forEach((slider) => { slider.value = value; });
  };
  fade(heat);
  root.oninput = (event) => {
    if (!event.target.matches("[data-heat]")) return;
    sessionStorage.setItem("ba-heat", event.target.value);
    fade(event.target.value);
  };
  root.onclick = (event) => {
    const marked = event.target.closest("[data-go]");
    if (!marked || event.metaKey || event.ctrlKey || event.shiftKey || event.button) return;
    event.preventDefault();
    const go = JSON.parse(marked.dataset.go);
    if (go.page) window.blindspotVisit(marked.href);
    else setTriggerValue("go", go);
  };
}
