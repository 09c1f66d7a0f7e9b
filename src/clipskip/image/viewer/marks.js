// What somebody thinks of a sweep: stars, a winner, notes, and blind comparisons of two pictures with what they came to.

import { at, h } from "./dom.js";

const EMPTY = { name: "", note: "", winner: null, cells: {}, choices: [] };
const BLANK = { star: false, name: "", note: "" };
const NOTE_MS = 400;

/**
 * The marks. `hear` has shown(), held(), sweep(), seen() (places that have pictures), cellAt, nameOf, compare(pair) to show two places
 * or none, blind(on), and kept(all, change): what is to be kept, and the change alone, for whoever has newer marks.
 */
export function openMarks(hear) {
  let all = EMPTY, pair = null, told = false, typing = 0;

  const of = (cell) => all.cells[cell.id] ?? BLANK;
  const starred = (cell) => of(cell).star;
  const wins = (cell) => cell.id !== undefined && all.winner === cell.id;

  function change(how) {
    all = how(all);
    tally();
    hear.kept(all, how);
  }

  const changeCell = (cell, part) => change((now) => ({ ...now, cells: { ...now.cells, [cell.id]: { ...BLANK, ...now.cells[cell.id], ...part } } }));
  const star = () => { const cell = hear.cellAt(hear.shown()), on = !starred(cell); changeCell(cell, { star: on }); };
  const crown = () => { const { id } = hear.cellAt(hear.shown()), winner = all.winner === id ? null : id; change((now) => ({ ...now, winner })); };

  /** The marks of another sweep, or these as somebody else has left them. */
  function open(kept) {
    all = { ...EMPTY, ...kept };
    stop();
    tally();
  }

  function show(place) {
    const cell = hear.cellAt(place);
    at("star").setAttribute("aria-pressed", String(starred(cell)));
    at("winner").setAttribute("aria-pressed", String(wins(cell)));
    if (document.activeElement !== at("note")) at("note").value = of(cell).note;
    at("note").dataset.id = cell.id;
    at("blind-start").disabled = hear.seen().length < 2;
  }

  /** Two pictures to compare: the held one and the shown, else two starred ones, else two of one row. */
  function choosePair() {
    const seen = hear.seen(), stars = seen.filter((place) => starred(hear.cellAt(place)));
    if (hear.held() && String(hear.held()) !== String(hear.shown()) && hear.cellAt(hear.held()).image && hear.cellAt(hear.shown()).image && !told) return [hear.held(), hear.shown()];
    const from = stars.length > 1 ? stars : seen, one = any(from), others = from.filter((place) => String(place) !== String(one));
    const fair = others.filter((place) => place[0] === one[0]);
    return [one, any(fair.length ? fair : others)];
  }

  function begin() {
    pair = choosePair();
    if (Math.random() < 0.5) pair.reverse();
    told = false;
    ask();
    hear.blind(true);
    hear.compare(pair);
    at("blind-a").focus();
  }

  function ask() {
    at("blind").hidden = pair === null;
    at("blind-start").hidden = pair !== null;
    at("blind-ask").hidden = told;
    at("blind-next").hidden = !told;
    at("blind-said").textContent = told ? at("blind-said").textContent : "Which is better? What they are is told afterwards.";
  }

  /** The choice is kept, and then it is told which is which. */
  function choose(index) {
    const [first, second] = pair, ids = pair.map((place) => hear.cellAt(place).id), names = pair.map(hear.nameOf);
    told = true;
    at("blind-said").textContent = `${index === null ? "You saw no difference." : `You chose ${names[index]}.`} A was ${names[0]}, B was ${names[1]}.`;
    ask();
    hear.blind(false);
    change((now) => ({ ...now, choices: [...now.choices, { one: ids[0], other: ids[1], chosen: index === null ? null : ids[index], at: new Date().toISOString() }] }));
    hear.compare([first, second]);
    at("blind-next").focus();
  }

  function stop() {
    const had = pair !== null;
    [pair, told] = [null, false];
    ask();
    hear.blind(false);
    if (had) hear.compare(null);
  }

  /** What all comparisons came to, by Clip Skip where pictures of different ones were compared, else by picture. */
  function tally() {
    const sweep = hear.sweep(), counts = new Map(), places = new Map();
    if (all.choices.length) sweep.cells.forEach((cells, r) => cells.forEach((cell, c) => places.set(cell.id, [r, c])));
    for (const { one, other, chosen } of all.choices) {
      const sides = [one, other].map((id) => places.get(id));
      if (sides.some((place) => !place)) continue;
      const byColumn = sides[0][1] !== sides[1][1];
      for (const [i, id] of [one, other].entries()) {
        const name = byColumn ? sweep.columns[sides[i][1]].label : hear.nameOf(sides[i]), count = counts.get(name) ?? { won: 0, even: 0, of: 0 };
        counts.set(name, { won: count.won + (chosen === id), even: count.even + (chosen === null), of: count.of + 1 });
      }
    }
    const sorted = [...counts].sort(([, a], [, b]) => b.won / b.of - a.won / a.of);
    at("tally").replaceChildren(...(sorted.length ? [h("p", { class: "about", text: "Chosen blind:" }), h("ul", {}, ...sorted.map(([name, { won, even, of }]) => h("li", { text: `${name}: ${won} of ${of}${even ? `, ${even} even` : ""}` })))] : []));
  }

  at("star").addEventListener("click", star);
  at("winner").addEventListener("click", crown);
  at("blind-start").addEventListener("click", begin);
  at("blind-next").addEventListener("click", begin);
  at("blind-stop").addEventListener("click", stop);
  for (const [id, index] of [["blind-a", 0], ["blind-b", 1], ["blind-none", null]]) at(id).addEventListener("click", () => choose(index));
  at("note").addEventListener("input", () => {
    const { id } = at("note").dataset, note = at("note").value;
    clearTimeout(typing);
    typing = setTimeout(() => changeCell({ id }, { note }), NOTE_MS);
  });

  return {
    open, show, change, starred, wins,
    value: () => all,
    set(kept) { all = { ...EMPTY, ...kept }; tally(); },
    /** What a picture is called while it is not to be known which it is. */
    masked: (place) => (pair && !told ? ["A", "B"][pair.findIndex((one) => String(one) === String(place))] ?? null : null),
    /** The keys: in a comparison only its own. */
    key(name) {
      if (pair && !told) return { a: () => choose(0), b: () => choose(1), n: () => choose(null), Escape: stop, Tab: null }[name.length === 1 ? name.toLowerCase() : name] ?? (name.startsWith("Arrow") ? () => {} : null);
      return { s: star, x: crown, b: () => { if (!at("blind-start").disabled) begin(); }, Escape: pair ? stop : null }[name.length === 1 ? name.toLowerCase() : name] ?? undefined;
    },
    asking: () => pair !== null && !told,
  };
}

const any = (places) => places[Math.floor(Math.random() * places.length)];
