// What all scripts of the page share, and what it writes on the screen.
"use strict";
const $ = id => document.getElementById(id);
const canvas = $("picture"), pen = canvas.getContext("2d");
const ARROWS = {up: "↑", down: "↓", left: "←", right: "→"};
const LONG = 32;
let about = null, gameKeys = new Set(), commandKeys = {};
let drawn = [], latencies = [];  // moments of the last pictures; milliseconds from a key to its picture

function element(name, text) {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

function notice(words) {  // instead of the picture
  $("notice").textContent = words;
  $("notice").hidden = !words;
}

const badges = {};  // what is said on the picture, the most urgent first
const URGENT = ["line", "file", "dream"];

function badge(kind, words) {
  badges[kind] = words;
  const shown = URGENT.map(each => badges[each]).find(Boolean) || "";
  if ($("badge").textContent !== shown) $("badge").textContent = shown;
  $("badge").hidden = !shown;
}

function figures(status) {
  const rate = drawn.length > 1 ? 1000 * (drawn.length - 1) / (drawn.at(-1) - drawn[0]) : 0;
  const late = [...latencies].sort((a, b) => a - b)[latencies.length >> 1];
  const rows = [[about.name, `${status.players} of ${about.limit} playing`],
    ["place", `${status.place + 1} of ${about.places}`], ["frames/s", rate ? rate.toFixed(0) : "–"],
    ["key to picture", late === undefined ? "–" : `${late.toFixed(0)} ms`],
    ["score", status.score.toFixed(1).replace("-0.0", "0.0")]];
  if (status.quality) rows.push(["quality", status.quality]);
  $("figures").replaceChildren(...rows.map(([name, value], i) => {
    const row = document.createElement("div");
    row.append(element(i ? "span" : "b", `${name} `), element(i ? "b" : "span", value));
    return row;
  }));
}

function fit() {  // whole multiples of the picture's pixels, where there is room for one
  if (!about) return;
  const room = document.querySelector("main");
  let factor = Math.min(room.clientWidth / about.width, room.clientHeight / about.height) * devicePixelRatio;
  factor = (factor > 1 ? Math.floor(factor) : factor) / devicePixelRatio;
  canvas.style.width = `${about.width * factor}px`;
  canvas.style.height = `${about.height * factor}px`;
}

function begin(what) {  // what the model's pictures, keys and commands are; told anew by every new line
  about = what;
  document.title = `${about.name} – game_wm`;
  if (canvas.width !== about.width || canvas.height !== about.height) {
    canvas.width = about.width;
    canvas.height = about.height;
  }
  gameKeys = new Set(about.keys.flatMap(row => row.keys));
  commandKeys = {};
  for (const command of about.commands) {
    for (const key of command.keys) commandKeys[key] = command.name;
    document.querySelector(`[data-command=${command.name}]`).title = `${command.text} (${command.keys[0]})`;
  }
  $("keys").replaceChildren(...about.keys.map(row => {
    const entry = document.createElement("span");
    entry.append(...row.keys.flatMap(key => [element("kbd", ARROWS[key] || key), " "]), `${row.text}   `);
    return entry;
  }));
  layThumbs();
  fit();
}
