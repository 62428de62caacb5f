"use strict";
for (const box of document.querySelectorAll(".command")) {
  const button = box.querySelector("button");
  button.hidden = false;
  button.addEventListener("click", async () => {
    const text = box.querySelector("pre").textContent;
    try { await navigator.clipboard.writeText(text); button.textContent = "Copied"; }
    catch { getSelection().selectAllChildren(box.querySelector("pre")); button.textContent = "Selected"; }
  });
}
const open = () => { const at = document.getElementById(decodeURIComponent(location.hash.slice(1))); if (at && "open" in at) at.open = true; };
addEventListener("hashchange", open); open();
addEventListener("beforeprint", () => { for (const one of document.querySelectorAll("details")) one.open = true; });
const chart = document.getElementById("chart"), held = document.getElementById("values");
if (chart && held) {
  const data = JSON.parse(held.textContent), keys = chart.querySelectorAll("[data-line]"), cursor = chart.querySelector(".cursor");
  const rest = [...keys].map((key) => key.textContent), now = document.getElementById("now");
  const leave = () => { cursor.style.display = "none"; now.textContent = ""; keys.forEach((key, at) => { key.textContent = rest[at]; }); };
  chart.addEventListener("pointerleave", leave);
  chart.addEventListener("pointermove", (event) => {
    const area = chart.querySelector(".plot .area").getBoundingClientRect(), box = chart.getBoundingClientRect();
    const share = (event.clientX - area.left) / area.width, at = Math.floor(share * data.count);
    if (at < 0 || at >= data.count) { leave(); return; }
    cursor.style.display = "block"; cursor.style.left = `${event.clientX - box.left}px`;
    now.textContent = `at ${(at * data.bucket).toFixed(2)} s`;
    keys.forEach((key, line) => { key.textContent = data.lines[line][at] ?? "–"; });
  });
}
