// Shows HTML and reports clicks on [data-go]; keeps the heat-map opacity in the browser.
export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector(".ba-live");
  if (root.shownHtml !== data.html) {
    root.innerHTML = data.html;
    root.shownHtml = data.html;
  }
  const heat = Number(sessionStorage.getItem("ba-heat") ?? 0.6);
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
    setTriggerValue("go", JSON.parse(marked.dataset.go));
  };
}
