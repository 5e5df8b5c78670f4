// The heat maps read out the pair under the pointer or the keyboard. Without scripts the title of
// each square does.
"use strict";
for (const table of document.querySelectorAll(".heatmap")) {
  const rows = Array.from(table.tBodies[0].rows, (row) => Array.from(row.querySelectorAll("td")));
  const output = table.closest("details").querySelector(".detail");
  const show = (cell) => { if (cell) output.textContent = cell.title; };
  let [i, j] = [0, 0];
  const focus = (row, column) => {
    if (!rows[row] || !rows[row][column]) return;
    rows[i][j].tabIndex = -1;
    [i, j] = [row, column];
    rows[i][j].tabIndex = 0;
    rows[i][j].focus();
  };
  rows[0][0].tabIndex = 0;
  const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  table.addEventListener("keydown", (event) => {
    const step = steps[event.key];
    if (!step) return;
    event.preventDefault();
    focus(i + step[0], j + step[1]);
  });
  table.addEventListener("focusin", (event) => show(event.target.closest("td[title]")));
  table.addEventListener("mouseover", (event) => show(event.target.closest("td[title]")));
  table.addEventListener("click", (event) => {
    const cell = event.target.closest("tbody td");
    if (cell) focus(rows.findIndex((row) => row.includes(cell)), rows.find((row) => row.includes(cell)).indexOf(cell));
  });
}
// Registered images take turns. They stand still until asked where the reader wants less motion, and
// lie one below the other where there are no scripts and on paper.
const still = matchMedia("(prefers-reduced-motion: reduce)");
for (const figure of document.querySelectorAll(".flicker")) {
  const frames = Array.from(figure.querySelectorAll(".turns > .pictures"));
  const control = (name) => figure.querySelector(`[data-flicker="${name}"]`);
  const play = control("play");
  let [shown, timer] = [0, 0];
  const show = (k) => {
    shown = k;
    frames.forEach((frame, n) => frame.classList.toggle("hidden", n !== k));
    figure.querySelector(".shown").textContent = timer ? "" : `Shown: ${frames[k].dataset.name}`;
  };
  const run = (on) => {
    clearInterval(timer);
    timer = on ? setInterval(() => show(1 - shown), 1000 * control("pace").value) : 0;
    play.textContent = on ? "Stop" : "Let them take turns";
    play.setAttribute("aria-pressed", String(on));
    show(shown);
  };
  figure.classList.add("live");
  figure.querySelector(".controls").hidden = false;
  play.addEventListener("click", () => run(!timer));
  control("swap").addEventListener("click", () => { run(false); show(1 - shown); });
  control("pace").addEventListener("input", () => { if (timer) run(true); });
  still.addEventListener("change", () => { if (still.matches) run(false); });
  run(!still.matches);
}
// A page that is printed shows every heat map; sidecars and settings stay folded.
addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll(".heat:not([open])")) part.open = true;
});
