"use strict";
// One image at a time: it is sent, what comes back is drawn. Nothing is stored, here or there.

const MAPS = {
  rollout: "attention, through all blocks: more where it is yellow",
  saliency: "gradient: yellow where a change of the pixel changes the answer",
  occlusion: "covered patches: red speaks for the class, blue against it",
};
const state = document.getElementById("state");
const heard = document.getElementById("heard"); // what is told to who does not see the answer
const drop = document.getElementById("drop");
const input = document.getElementById("file");
const answers = document.getElementById("answers");
let asked = 0; // the number of the last question: answers to earlier ones come too late

function say(text, wrong = false) {
  state.textContent = text;
  state.classList.toggle("wrong", wrong);
}

async function ask(file, target, kind) {
  const turn = ++asked;
  const megabytes = Number(document.body.dataset.megabytes);
  if (file.size > megabytes * 1e6) {
    answers.replaceChildren();
    return say(`Expected a file of at most ${megabytes} MB, got ${(file.size / 1e6).toFixed(1)} MB.`, true);
  }
  say("Asking …");
  let told;
  try {
    const where = target === undefined ? "answer" : `answer?class=${encodeURIComponent(target)}`;
    const response = await fetch(where, { method: "POST", body: file, headers: { "content-type": "application/octet-stream" } });
    told = await response.json().catch(() => ({ error: `The server said ${response.status}.` }));
  } catch {
    told = { error: "The server cannot be reached. Does it still run?" };
  }
  if (turn !== asked) return;
  if (told.error !== undefined) {
    answers.replaceChildren();
    return say(told.error, true);
  }
  const more = told.frames - told.answers.length;
  say(more ? `The first ${told.answers.length} of ${told.frames} frames.` : "");
  answers.replaceChildren(...told.answers.map((answer) => drawn(answer, kind, (name, map) => ask(file, name, map))));
  heard.textContent = told.answers.map(title).join("; ");
  if (target !== undefined) answers.querySelector('.said button[aria-pressed="true"]').focus();
}

function drawn(answer, kind, explain) {
  const section = document.getElementById("answer").content.cloneNode(true).firstElementChild;
  section.querySelector("img").src = answer.image;
  section.querySelector("h2").textContent = title(answer);
  section.querySelector(".notes").append(...notes(answer));
  let shown = answer.maps[kind] === undefined ? Object.keys(answer.maps)[0] : kind;
  const label = [].concat(answer.label ?? []);
  for (const [name, value] of Object.entries(answer.probabilities)) {
    const row = document.createElement("tr");
    row.classList.toggle("chosen", label.includes(name));
    row.innerHTML = '<th scope="row"><button type="button"></button></th><td><div class="bar"><i></i></div></td><td class="number"></td>';
    const button = row.querySelector("button");
    button.textContent = name;
    button.setAttribute("aria-pressed", String(name === answer.explained));
    button.addEventListener("click", () => explain(name, shown));
    row.querySelector("i").style.width = `${100 * value}%`;
    row.querySelector(".number").textContent = value.toFixed(3);
    section.querySelector("tbody").append(row);
  }
  const choices = ["none", ...Object.keys(answer.maps)].map((name) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = name;
    button.addEventListener("click", () => show(name));
    return button;
  });
  section.querySelector(".maps").append(...choices);
  function show(name) {
    shown = name;
    for (const button of choices) button.setAttribute("aria-pressed", String(button.textContent === name));
    section.querySelector(".legend").textContent =
      name === "none" ? "the image as the model sees it" : `${MAPS[name] ?? name} (${answer.explained})`;
    paint(section.querySelector("canvas"), answer.maps[name] ?? []);
  }
  show(shown);
  return section;
}

function title(answer) {
  if (answer.withheld) return "No answer: not sure enough";
  const label = [].concat(answer.label);
  return label.length ? label.join(", ") : "none of the labels";
}

function notes(answer) {
  const found = [];
  const note = (text, warning) => {
    const line = document.createElement("li");
    line.textContent = text;
    line.classList.toggle("warning", warning);
    found.push(line);
  };
  if (answer.unlike) note("This image is unlike those that the model was trained on: do not trust the answer.", true);
  note(`Confidence ${answer.confidence.toFixed(3)}${answer.withheld ? ", too low to answer" : ""}.`, answer.withheld);
  const known = Object.keys(answer.probabilities).length;
  const possible = answer.possible;
  const promise = `(right for ${Math.round(100 * document.body.dataset.sets)} % of images like those trained on)`;
  note(
    possible.length === 0 ? `No label is possible ${promise}.`
    : possible.length === known ? "No class can be excluded."
    : possible.length === 1 ? `All other classes can be excluded ${promise}.`
    : `Cannot be excluded: ${possible.join("; ")} ${promise}.`, false);
  return found;
}

// Drawn in the page's own pixels, one for each value: the browser enlarges them.
function paint(canvas, values) {
  const height = values.length, width = height ? values[0].length : 1;
  canvas.width = width;
  canvas.height = height || 1;
  if (!height) return;
  const flat = values.flat();
  const low = flat.reduce((a, b) => Math.min(a, b)), high = flat.reduce((a, b) => Math.max(a, b)), signed = low < 0;
  const picture = new ImageData(width, height);
  flat.forEach((value, place) => {
    const part = signed ? Math.abs(value) : high > low ? (value - low) / (high - low) : 0;
    const colour = !signed ? [255, 214, 0] : value > 0 ? [214, 39, 40] : [31, 119, 250];
    picture.data.set([...colour, 200 * part], 4 * place);
  });
  canvas.getContext("2d").putImageData(picture, 0, 0);
}

function take(files) {
  const file = [...files].find((one) => one.size !== undefined);
  if (file === undefined) return say("That was no file. Save the image first, then drop the file.", true);
  ask(file);
}

input.addEventListener("change", () => {
  if (input.files.length) take(input.files);
  input.value = ""; // so that the same file can be chosen again
});
for (const name of ["dragenter", "dragover"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
}
document.addEventListener("dragleave", (event) => {
  if (event.relatedTarget === null) drop.classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  take(event.dataTransfer.files);
});
document.addEventListener("paste", (event) => {
  if (event.clipboardData.files.length) take(event.clipboardData.files);
});
