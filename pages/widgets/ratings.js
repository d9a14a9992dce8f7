// One item to rate: number keys choose, Enter saves, the left arrow goes back. What is typed into the text field stays text: no key chooses there.
export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector(".ba-rating");
  if (root.token === data.token && root.shownHtml === data.html) return;
  root.innerHTML = data.html;
  root.token = data.token;
  root.shownHtml = data.html;
  root.began = performance.now();
  root.saving = false;
  if (data.ahead) new Image().src = data.ahead;
  const options = [...root.querySelectorAll("[data-option]")];
  const marks = [...root.querySelectorAll("[data-mark]")];
  const note = root.querySelector("[data-note]");
  const save = root.querySelector("[data-save]");
  const chosen = () => options.find((one) => one.getAttribute("aria-checked") === "true");
  const ready = () => { save.disabled = root.saving || Boolean(options.length && !chosen()); };
  const choose = (option) => {
    options.forEach((one) => one.setAttribute("aria-checked", one === option));
    ready();
    note.focus({ preventScroll: true });
  };
  const mark = (one) => { one.setAttribute("aria-checked", one.getAttribute("aria-checked") !== "true"); };
  const send = () => {
    ready();
    if (save.disabled) return;
    root.saving = true;
    ready();
    const value = options.length ? JSON.parse(chosen().dataset.option)
      : marks.flatMap((one, place) => (one.getAttribute("aria-checked") === "true" ? [place] : []));
    setTriggerValue("rating", { token: data.token, value, note: note.value, seconds: (performance.now() - root.began) / 1000 });
    setTimeout(() => { root.saving = false; ready(); }, 4000);
  };
  const back = () => { if (root.querySelector("[data-back]") && !root.saving) setTriggerValue("back", true); };
  root.onclick = (event) => {
    const option = event.target.closest("[data-option]"), marked = event.target.closest("[data-mark]");
    if (option) choose(option);
    else if (marked) mark(marked);
    else if (event.target.closest("[data-save]")) send();
    else if (event.target.closest("[data-back]")) back();
  };
  document.removeEventListener("keydown", window.blindspotRatingKeys);
  window.blindspotRatingKeys = (event) => {
    if (!root.isConnected || event.metaKey || event.ctrlKey || event.altKey || event.isComposing) return;
    const typing = event.target.matches?.("input, textarea, select, [contenteditable]");
    if (typing && event.target !== note) return;
    if (event.key === "Enter") {
      if (!typing && event.target.matches?.("button, a, [role=button]") && !root.contains(event.target)) return;
      event.preventDefault();
      send();
    } else if (typing && event.key === "Escape") note.blur();
    else if (!typing && /^[1-9]$/.test(event.key)) {
      const place = Number(event.key) - 1;
      if (options[place]) { event.preventDefault(); choose(options[place]); } else if (marks[place]) mark(marks[place]);
    } else if (!typing && event.key === "ArrowLeft") back();
  };
  document.addEventListener("keydown", window.blindspotRatingKeys);
  ready();
}
