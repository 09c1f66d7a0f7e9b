// The server, asked in JSON. Every refusal becomes an ApiError that names its field.

export class ApiError extends Error {
  constructor(message, { field = null, status = 0 } = {}) {
    super(message);
    this.field = field;
    this.status = status;
  }
}

async function ask(path, { method = "GET", body, signal } = {}) {
  const form = body instanceof FormData;
  let answer;
  try {
    answer = await fetch(path, {
      method,
      signal,
      headers: body === undefined || form ? {} : { "Content-Type": "application/json" },
      body: body === undefined || form || typeof body === "string" ? body : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server does not answer. Is clipskip serve still running?");
  }
  const said = await answer.json().catch((error) => {
    if (error.name === "AbortError") throw error;
    return null;
  });
  if (!answer.ok) throw refusal(said, answer);
  return said;
}

function refusal(said, answer) {
  const details = said?.detail ?? said?.message ?? `The server answered ${answer.status}.`;
  const first = Array.isArray(details) ? details[0] : null;
  const field = said?.field ?? (first ? first.loc?.filter((part) => part !== "body").join(".") : null);
  const message = first ? first.msg : String(details), start = `${field}: `;
  return new ApiError(message.startsWith(start) ? message.slice(start.length) : message, { field: field || null, status: answer.status });
}

/** JSON with a seed that is text here, since it may have more digits than a number holds. */
const withSeed = ({ seed, ...body }) => `${JSON.stringify(body).slice(0, -1)},"seed":${BigInt(seed)}}`;

const sweepPath = (id) => `/v1/sweeps/${encodeURIComponent(id)}`;

export const api = {
  status: () => ask("/v1/status"),
  files: () => ask("/v1/files"),
  samplers: () => ask("/v1/samplers"),
  axes: () => ask("/v1/axes"),
  start: (body) => ask("/v1/sweeps", { method: "POST", body: withSeed(body) }),
  /** What a sweep would be: its size, and what is likely not meant. */
  check: (body, signal) => ask("/v1/sweeps/check", { method: "POST", body: withSeed(body), signal }),
  /** Past sweeps: of words, those that have each of them. */
  sweeps: (words = "") => ask(`/v1/sweeps${words ? `?q=${encodeURIComponent(words)}` : ""}`),
  deleteSweep: (id) => ask(`${sweepPath(id)}/folder?confirm=${encodeURIComponent(id)}`, { method: "DELETE" }),
  sources: () => ask("/v1/scores"),
  scores: (id) => ask(`${sweepPath(id)}/scores`),
  findScores: (id, scores) => ask(`${sweepPath(id)}/scores`, { method: "POST", body: { scores } }),
  stopScores: (id) => ask(`${sweepPath(id)}/scores`, { method: "DELETE" }),
  sweep: (id) => ask(sweepPath(id)),
  marks: (id) => ask(`${sweepPath(id)}/marks`),
  mark: (id, marks) => ask(`${sweepPath(id)}/marks`, { method: "PUT", body: marks }),
  cancel: (id) => ask(sweepPath(id), { method: "DELETE" }),
  resume: (id) => ask(`${sweepPath(id)}/resume`, { method: "POST" }),
  prompt: (body, signal) => ask("/v1/prompt", { method: "POST", body, signal }),
  settingsText: (text) => ask("/v1/settings", { method: "POST", body: { text } }),
  settingsFile: (file) => {
    const body = new FormData();
    body.append("file", file);
    return ask("/v1/settings", { method: "POST", body });
  },
  dialects: (body) => ask("/v1/dialects", { method: "POST", body }),
  layers: (body) => ask("/v1/layers", { method: "POST", body }),
  forms: (image) => ask(image.replace(/\.png$/, "/forms")),
  advice: (id) => ask(`${sweepPath(id)}/advice`),
  findAdvice: (id) => ask(`${sweepPath(id)}/advice`, { method: "POST" }),
  stopAdvice: (id) => ask(`${sweepPath(id)}/advice`, { method: "DELETE" }),
  clipSkips: (body, signal) => ask("/v1/clip-skips", { method: "POST", body, signal }),
  inspect: (name) => ask("/v1/inspect", { method: "POST", body: { name } }),
};

/** Follows a sweep. `hear` has sweep, step, cell, end, lost; gives a function that stops. */
export function follow(id, hear) {
  const source = new EventSource(`${sweepPath(id)}/events`);
  for (const name of ["sweep", "step", "cell", "progress", "end"]) {
    source.addEventListener(name, (event) => {
      if (name === "end") source.close();
      hear[name](JSON.parse(event.data));
    });
  }
  source.addEventListener("error", () => hear.lost(source.readyState === EventSource.CLOSED));
  return () => source.close();
}
