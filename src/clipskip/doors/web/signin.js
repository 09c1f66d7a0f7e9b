// Trades the token for a cookie that scripts cannot read, then shows the page.

const form = document.getElementById("signin");

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const told = document.getElementById("told");
  told.textContent = "";
  try {
    const answer = await fetch("/v1/session", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ token: document.getElementById("token").value }),
    });
    if (answer.ok) location.reload();
    else told.textContent = (await answer.json()).detail;
  } catch {
    told.textContent = "The server does not answer. Is clipskip serve still running?";
  }
});
