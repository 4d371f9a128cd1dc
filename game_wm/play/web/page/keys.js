// Keys: each is as far down as the hardest of the fingers, keys and sticks that hold it.
const holding = new Map();  // who holds -> [key, level]
const levels = {};
let rewinds = new Set();  // who holds the time back

function hold(who, key, level, at) {
  if (level) holding.set(who, [key, level]); else holding.delete(who);
  const now = Math.max(0, ...[...holding.values()].filter(held => held[0] === key).map(held => held[1]));
  if (now === (levels[key] || 0)) return;
  levels[key] = now;
  send({key, level: now, at});
  for (const button of document.querySelectorAll("#touch button"))
    if (button.dataset.key === key) button.classList.toggle("down", now > 0);
}

function rewind(who, down) {
  const before = rewinds.size > 0;
  if (down) rewinds.add(who); else rewinds.delete(who);
  if (before === rewinds.size > 0) return;
  send({rewind: !before});
  document.querySelector("[data-command=rewind]").classList.toggle("down", !before);
}

function letGo() {
  for (const [who, [key]] of [...holding]) hold(who, key, 0, performance.now());
  for (const who of [...rewinds]) rewind(who, false);
}

const NAMES = {" ": "space", enter: "return", pageup: "page up", pagedown: "page down", control: "ctrl",
               arrowup: "up", arrowdown: "down", arrowleft: "left", arrowright: "right"};

function meant(key, place, ctrl) {  // [key of the game, command], as `keymap.meant` says it: both know keys by their places
  const names = place ? [key, place] : [key];
  let held = names.filter(name => commandKeys[`ctrl+${name}`]).map(name => commandKeys[`ctrl+${name}`]);
  if (!gameKeys.has("left ctrl") && !gameKeys.has("right ctrl"))  // else Ctrl is held to play
    held = [...held, ...names.filter(name => commandKeys[name]).map(name => commandKeys[name])];
  if (ctrl && held.length) return [null, held[0]];
  for (const name of [place, key]) if (gameKeys.has(name)) return [name, null];
  return [null, commandKeys[key] || commandKeys[place] || null];
}

function name(event) {  // as the key map spells it
  const key = NAMES[event.key.toLowerCase()] || event.key.toLowerCase();
  return ["shift", "ctrl", "alt", "meta"].includes(key) ? `${event.location === 2 ? "right" : "left"} ${key}` : key;
}

addEventListener("keydown", event => {
  if (choosing()) return;
  if (lost) {
    if (!event.repeat && resume && !event.ctrlKey && !event.metaKey && !event.altKey) resume();
    return;
  }
  if (!about || event.metaKey) return;
  const [key, command] = meant(name(event), about.codes[event.code] || null, event.ctrlKey);
  if (key) {
    if (!event.repeat) hold(event.code, key, 1, event.timeStamp);
  } else if (command === "rewind") {
    rewind(event.code, true);
  } else if (command) {
    if (!event.repeat) obey(command);
  } else return;
  event.preventDefault();
});
addEventListener("keyup", event => {
  const held = holding.get(event.code);  // its name may be another one by now: Shift makes "1" a "!"
  if (held) hold(event.code, held[0], 0, event.timeStamp);
  rewind(event.code, false);
});
addEventListener("blur", letGo);
addEventListener("contextmenu", event => event.preventDefault());
addEventListener("gesturestart", event => event.preventDefault());  // Safari zooms all the same

// --- commands ---

function obey(command) {
  if (command === "hud") $("figures").hidden = !$("figures").hidden;
  else if (command === "full_screen") fullScreen();
  else if (command === "save") save();
  else if (command === "screenshot") screenshot();
  else if (command === "quit") leaveDream();
  else {
    latencies = [];
    send({command});
  }
}

for (const button of document.querySelectorAll("[data-command]")) {
  const command = button.dataset.command;
  if (command !== "rewind") {
    button.onclick = () => { obey(command); button.blur(); };
    continue;
  }
  button.onpointerdown = event => {
    button.setPointerCapture(event.pointerId);
    rewind(`finger ${event.pointerId}`, true);
  };
  button.onpointerup = button.onpointercancel = event => rewind(`finger ${event.pointerId}`, false);
}
$("menu").onclick = () => {
  $("menu").setAttribute("aria-expanded", document.body.classList.toggle("menu"));
  fit();
};
