// Shows HTML and follows clicks on [data-go], to another page in the browser (`navigate.js`); keeps the heat-map opacity in the browser. On a narrow screen, where what
// was clicked may stand far above, a changed [data-arrive] scrolls into view.
// Scrolls to what a click opens elsewhere on the page, once it is there and unless it can be seen.
function reveal(selector, turns = 40) {
  const place = document.querySelector(selector);
  const top = place?.getBoundingClientRect().top;
  if (place && (top < 50 || top > window.innerHeight - 200)) place.scrollIntoView({ behavior: "smooth" });
  else if (!place && turns) setTimeout(() => reveal(selector, turns - 1), 100);
}

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
  const tint = (blue) => {
    document.documentElement.style.setProperty("--ba-hue", blue ? "200deg" : "0deg");
    document.querySelectorAll("[data-hue]").forEach((button) => button.setAttribute("aria-pressed", blue));
  };
  tint(sessionStorage.getItem("ba-hue") === "blue");
  root.oninput = (event) => {
    if (!event.target.matches("[data-heat]")) return;
    sessionStorage.setItem("ba-heat", event.target.value);
    fade(event.target.value);
  };
  root.onpointerdown = (event) => {
    const link = event.target.closest("a[data-go]");
    if (link) link.href = window.blindspotCarry(link.href);
  };
  root.onclick = (event) => {
    const hue = event.target.closest("[data-hue]");
    if (hue) {
      const blue = hue.getAttribute("aria-pressed") !== "true";
      sessionStorage.setItem("ba-hue", blue ? "blue" : "");
      event.preventDefault();
      return tint(blue);
    }
    const copied = event.target.closest("[data-copy]");
    if (copied) {
      event.preventDefault();
      const words = copied.textContent;
      navigator.clipboard.writeText(copied.dataset.copy || location.href).then(() => "Copied", () => "Not allowed here").then((said) => {
        copied.textContent = said;
        setTimeout(() => { copied.textContent = words; }, 1600);
      });
      return;
    }
    const marked = event.target.closest("[data-go]");
    if (!marked || event.metaKey || event.ctrlKey || event.shiftKey || event.button) return;
    event.preventDefault();
    const go = JSON.parse(marked.dataset.go);
    if (go.page) window.blindspotVisit(marked.href);
    else setTriggerValue("go", go);
    if (marked.dataset.reveal) reveal(marked.dataset.reveal);
  };
}
