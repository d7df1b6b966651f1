// What a page does not need, but people like.
"use strict";

// copy puts a text on the clipboard; without https there is no API for it.
async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = document.createElement("textarea");
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

for (const box of document.querySelectorAll(".copyable")) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "copy";
  button.textContent = "Copy";
  button.setAttribute("aria-live", "polite");
  button.addEventListener("click", async () => {
    await copy(box.querySelector("code").textContent);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
  box.append(button);
}

// A slash begins a search, as elsewhere.
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, textarea, select");
  if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  document.getElementById("q").focus();
});

// What arrives comes as pieces of the page.
const list = document.getElementById("arriving");
if (list) {
  const events = new EventSource("/-/events");
  events.addEventListener("arriving", (event) => {
    list.innerHTML = event.data;
    document.getElementById("live").hidden = event.data.trim() === "";
  });
  addEventListener("pagehide", () => events.close());
}
