// The server's own description of its API (/openapi.json) as a page.

const METHODS = ["get", "post", "put", "delete"];

/** An element with a class, text and children. */
function make(tag, { text = "", kind = "", children = [] } = {}) {
  const element = document.createElement(tag);
  if (text) element.textContent = text;
  if (kind) element.className = kind;
  element.append(...children);
  return element;
}

/** The schema itself, where it is only named. */
function found(schema, whole) {
  const path = schema?.$ref;
  return path ? path.slice(2).split("/").reduce((part, name) => part?.[name], whole) ?? {} : schema ?? {};
}

/** A schema's kind of value in a few words. */
function kindOf(schema, whole, depth = 0) {
  const own = found(schema, whole);
  const choices = own.anyOf ?? own.oneOf;
  if (choices) return choices.map((one) => kindOf(one, whole, depth + 1)).join(" or ");
  if (own.enum) return own.enum.map((value) => JSON.stringify(value)).join(", ");
  if ("const" in own) return JSON.stringify(own.const);
  if (own.type === "array") return `list of ${depth > 3 ? "values" : kindOf(own.items, whole, depth + 1)}`;
  const limits = [];
  if (own.minimum !== undefined) limits.push(`from ${own.minimum}`);
  if (own.maximum !== undefined) limits.push(`to ${own.maximum}`);
  if (own.maxLength !== undefined) limits.push(`up to ${own.maxLength} characters`);
  return [own.title && own.properties ? own.title : own.type ?? "any value", ...limits].join(" ");
}

/** A table of rows of texts under a heading. */
function table(title, heads, rows) {
  const head = make("tr", { children: heads.map((text) => make("th", { text })) });
  const body = rows.map((row) => make("tr", { children: row.map((text) => make("td", { text })) }));
  return make("table", { children: [make("caption", { text: title }), head, ...body] });
}

/** The fields of a body or an answer. */
function fields(title, schema, whole) {
  const own = found(schema, whole);
  if (!own.properties) return make("p", { text: `${title}: ${kindOf(own, whole)}` });
  const rows = Object.entries(own.properties).map(([name, field]) => {
    const needed = own.required?.includes(name) && !("default" in field);
    const usual = "default" in field ? JSON.stringify(field.default) : needed ? "needed" : "";
    return [name, kindOf(field, whole), usual, found(field, whole).description ?? field.description ?? ""];
  });
  return table(title, ["Field", "Value", "Default", ""], rows);
}

/** One call: what it takes and what it answers. */
function call(path, method, operation, whole) {
  const inside = make("div", { kind: "inside" });
  if (operation.parameters?.length) {
    const rows = operation.parameters.map((one) => [one.name, one.in, kindOf(one.schema, whole)]);
    inside.append(table("In the address", ["Name", "Where", "Value"], rows));
  }
  for (const [type, content] of Object.entries(operation.requestBody?.content ?? {}))
    inside.append(fields(`Body, ${type}`, content.schema, whole));
  const answers = Object.entries(operation.responses ?? {}).map(([status, one]) => [status, one.description ?? ""]);
  for (const [type, content] of Object.entries(operation.responses?.["200"]?.content ?? {}))
    inside.append(fields(`Answer, ${type}`, content.schema, whole));
  inside.append(table("Statuses", ["Status", "When"], answers));
  const about = (operation.description ?? operation.summary ?? "").split("\n")[0];
  const summary = make("summary", {
    children: [make("span", { kind: "method", text: method.toUpperCase() }), make("code", { text: path }), make("span", { kind: "about", text: ` ${about}` })],
  });
  const details = make("details", { children: [summary, inside] });
  details.dataset.words = `${method} ${path} ${about}`.toLowerCase();
  return details;
}

/** All calls, in groups. */
function show(whole) {
  const groups = new Map();
  for (const [path, operations] of Object.entries(whole.paths))
    for (const method of METHODS.filter((name) => name in operations)) {
      const operation = operations[method];
      const group = operation.tags?.[0] ?? "others";
      groups.set(group, [...(groups.get(group) ?? []), call(path, method, operation, whole)]);
    }
  const sections = [...groups].map(([name, calls]) => make("section", { children: [make("h2", { text: name }), ...calls] }));
  document.getElementById("calls").replaceChildren(...sections);
}

/** Hides the calls without these words, and groups with none left. */
function filter(words) {
  for (const details of document.querySelectorAll("details")) details.hidden = !details.dataset.words.includes(words);
  for (const section of document.querySelectorAll("section"))
    section.hidden = [...section.querySelectorAll("details")].every((details) => details.hidden);
}

const told = document.getElementById("told");
try {
  const answer = await fetch("/openapi.json");
  if (!answer.ok) throw new Error(`the server answers ${answer.status}`);
  show(await answer.json());
} catch (error) {
  told.textContent = `The description cannot be read: ${error.message}`;
}
const words = document.getElementById("filter");
words.addEventListener("input", () => filter(words.value.trim().toLowerCase()));
