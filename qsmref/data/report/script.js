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
// A page that is printed shows every heat map; sidecars and settings stay folded.
addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll(".heat:not([open])")) part.open = true;
});
