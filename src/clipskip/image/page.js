"use strict";
const sweep = JSON.parse(document.getElementById("sweep").textContent);
const at = (id) => document.getElementById(id);
const drawn = (row, column) => sweep.cells[row][column];
let row = sweep.rows.length - 1, column = 0, held = null;

const name = (r, c) => `${sweep.columns[c]}, ${sweep.rows[r]}`;

function show() {
  const cell = drawn(row, column);
  at("skip").value = column;
  at("skip").setAttribute("aria-valuetext", sweep.columns[column]);
  at("skip-value").textContent = sweep.columns[column].replace("Clip Skip ", "");
  at("image").src = cell ? cell.image : "";
  at("image").alt = cell ? `The picture at ${name(row, column)}` : "not drawn";
  at("label").textContent = cell ? name(row, column) : `${name(row, column)}: not drawn`;
  at("settings").textContent = cell ? cell.settings : "";
  at("held").hidden = held === null;
  if (held) {
    at("held-image").src = drawn(...held).image;
    at("held-image").alt = `The picture held beside it, at ${name(...held)}`;
    at("held-label").textContent = name(...held);
  }
  document.querySelectorAll("#rows input").forEach((input, i) => { input.checked = i === row; });
  document.querySelectorAll("td button").forEach((button) => {
    const r = Number(button.dataset.row), c = Number(button.dataset.column);
    button.classList.toggle("shown", r === row && c === column);
    const isHeld = held !== null && held[0] === r && held[1] === c;
    button.classList.toggle("held", isHeld);
    button.setAttribute("aria-pressed", isHeld);
  });
}

function element(tag, text, attributes = {}) {
  const made = document.createElement(tag);
  made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function build() {
  at("prompt").textContent = sweep.prompt;
  at("skip").max = sweep.columns.length - 1;
  sweep.rows.forEach((text, r) => {
    const label = element("label", "");
    const input = element("input", "", { type: "radio", name: "row", value: r });
    input.addEventListener("change", () => { row = r; show(); });
    label.append(input, " ", text);
    at("rows").append(label);
  });
  const head = element("tr", "");
  head.append(element("td", ""), ...sweep.columns.map((text) => element("th", text, { scope: "col" })));
  const thead = element("thead", ""), tbody = element("tbody", "");
  thead.append(head);
  sweep.cells.forEach((cells, r) => {
    const line = element("tr", "");
    line.append(element("th", sweep.rows[r], { scope: "row" }));
    cells.forEach((cell, c) => {
      const place = element("td", cell ? "" : "not drawn");
      if (cell) {
        const button = element("button", "", { type: "button", "data-row": r, "data-column": c, "aria-label": `Hold ${name(r, c)} for comparison` });
        button.append(element("img", "", { src: cell.image, alt: "" }));
        button.addEventListener("click", () => {
          held = held && held[0] === r && held[1] === c ? null : [r, c];
          show();
        });
        place.append(button);
      }
      line.append(place);
    });
    tbody.append(line);
  });
  at("grid").append(thead, tbody);
}

at("skip").addEventListener("input", (event) => { column = Number(event.target.value); show(); });
at("drop").addEventListener("click", () => { held = null; show(); });
at("copy").addEventListener("click", async () => {
  const text = at("settings").textContent;
  try {
    await navigator.clipboard.writeText(text);
    at("copied").textContent = "Copied.";
  } catch {
    getSelection().selectAllChildren(at("settings"));
    at("copied").textContent = "Selected: press Ctrl+C.";
  }
});
document.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
  if (!step || event.ctrlKey || event.metaKey || event.altKey || event.target.closest("pre")) return;
  event.preventDefault();
  row = Math.min(Math.max(row + step[0], 0), sweep.rows.length - 1);
  column = Math.min(Math.max(column + step[1], 0), sweep.columns.length - 1);
  show();
});
build();
show();
