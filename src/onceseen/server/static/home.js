"use strict";
// Upload by choice, drop or paste; and the latest answers, fetched anew when the server says that something happened.
const byId = (id) => document.getElementById(id);
const said = (text, bad) => { byId("said").textContent = text; byId("said").className = bad ? "bad" : ""; };

let fetching = false, again = false;
async function refresh() {
  if (fetching) { again = true; return; }
  fetching = true;
  try {
    const answer = await fetch("/latest");
    if (answer.ok) byId("latest").innerHTML = await answer.text(); // escaped by the server
  } catch { /* the event stream says when the server is back */ }
  await new Promise((done) => setTimeout(done, 200)); // at most five times a second, however much happens
  fetching = false;
  if (again) { again = false; refresh(); }
}

async function upload(files) {
  if (!files.length) return;
  const model = encodeURIComponent(byId("model").value);
  said(`Sending ${files.length} file${files.length > 1 ? "s" : ""} …`);
  const archive = files.length === 1 && /\.(zip|tar)$/i.test(files[0].name);
  const form = new FormData();
  for (const file of files) form.append("images", file, file.name);
  const type = archive && (/\.zip$/i.test(files[0].name) ? "application/zip" : "application/x-tar");
  try {
    const answer = await fetch(`/v1/jobs?model=${model}&wait=20`, archive
      ? { method: "POST", body: files[0], headers: { "content-type": type } }
      : { method: "POST", body: form });
    const job = await answer.json();
    if (!answer.ok) { said(job.detail || answer.statusText, true); return; }
    const parts = [`${job.succeeded} answered`];
    if (job.failed) parts.push(`${job.failed} failed`);
    if (job.queued + job.running) parts.push(`${job.queued + job.running} still to come`);
    said(parts.join(", "), job.failed > 0 && !job.succeeded);
    refresh();
  } catch { said("The server could not be reached.", true); }
}

const drop = byId("drop");
for (const kind of ["dragenter", "dragover"]) drop.addEventListener(kind, (event) => { event.preventDefault(); drop.classList.add("over"); });
for (const kind of ["dragleave", "drop"]) drop.addEventListener(kind, () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => { event.preventDefault(); upload([...event.dataTransfer.files]); });
document.addEventListener("paste", (event) => upload([...event.clipboardData.files]));
byId("files").addEventListener("change", (event) => { upload([...event.target.files]); event.target.value = ""; });

const live = byId("live");
const events = new EventSource("/v1/events");
let away = false;
events.onopen = () => { live.textContent = "live"; live.className = ""; if (away) refresh(); away = false; };
events.onerror = () => { live.textContent = "reconnecting"; live.className = "away"; away = true; };
events.onmessage = refresh;
events.addEventListener("reset", refresh);
