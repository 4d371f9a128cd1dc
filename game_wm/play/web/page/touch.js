// Thumbs: the left one walks on a stick, the right one turns and presses buttons, and slides from one to another.
const LETTERS = {up: "w", down: "s", left: "a", right: "d"};  // what stands for an arrow that the game has not
const DEAD = 0.15, ALL_THE_WAY = 0.6;  // of the way from the middle of the picture to its edge
const REST = 0.25, SIDEWAYS = Math.sin(Math.PI / 8);  // of the stick's way that is nothing; eight directions, 45° each
const FINE = 16;  // steps of an axis: a thumb that trembles says nothing
let walking = {};  // direction of the stick -> key
const fingers = new Map();  // pointer on the thumbs' part of the page -> the key that it holds, or "stick"

const arrowKey = arrow => gameKeys.has(arrow) ? arrow : LETTERS[arrow];
const rowOf = key => about.keys.find(row => row.keys.includes(key));

function layThumbs() {
  const way = arrow => gameKeys.has(arrowKey(arrow)) ? arrowKey(arrow) : null;
  // Arrows turn and A and D step aside: both thumbs have their own. Otherwise left and right are on both.
  const aside = ["left", "right"].every(a => gameKeys.has(a) && gameKeys.has(LETTERS[a]) && rowOf(a) !== rowOf(LETTERS[a]));
  walking = {up: way("up"), down: way("down"), left: aside ? "a" : way("left"), right: aside ? "d" : way("right")};
  const vertical = walking.up || walking.down, horizontal = way("left") && way("right");
  const turning = vertical && horizontal ? [way("left"), way("right")] : [];
  const rows = new Set([...Object.values(walking), ...turning].filter(Boolean).map(rowOf));
  $("stick").hidden = !vertical && !horizontal;
  $("turn").replaceChildren(...turning.map((key, i) => thumbButton(key, i ? "▶" : "◀")));
  $("rest").replaceChildren(...about.keys.filter(row => !rows.has(row)).map(row => thumbButton(row.keys[0], row.text)));
  $("stick").title = ["up", "down", "left", "right"].map(a => walking[a] && rowOf(walking[a]).text).filter(Boolean).join(", ");
  canvas.onpointerdown = canvas.onpointermove = canvas.onpointerup = canvas.onpointercancel = about.axes ? pull : null;
}

function thumbButton(key, text) {
  const button = element("button", text);
  button.setAttribute("aria-label", rowOf(key).text);
  button.dataset.key = key;
  return button;
}

function point(event) {  // the finger moves the stick
  const box = $("stick").getBoundingClientRect(), up = !fingers.has(event.pointerId);
  let x = up ? 0 : 2 * (event.clientX - box.left) / box.width - 1;
  let y = up ? 0 : 2 * (event.clientY - box.top) / box.height - 1;
  const far = Math.hypot(x, y), out = Math.max(1, far);
  $("stick").classList.toggle("down", far > REST);
  $("knob").style.transform = `translate(${60 * x / out}%, ${60 * y / out}%)`;
  for (const [way, part] of [["left", -x], ["right", x], ["up", -y], ["down", y]]) {
    if (!walking[way]) continue;
    const level = about.axes ? Math.round(FINE * Math.min(1, part)) / FINE : Number(part > SIDEWAYS * far);
    hold(`stick ${way}`, walking[way], far > REST ? Math.max(0, level) : 0, event.timeStamp);
  }
}

function slide(event) {  // the finger holds the button that it is on
  const under = document.elementFromPoint(event.clientX, event.clientY)?.closest("#touch button");
  const before = fingers.get(event.pointerId), now = under ? under.dataset.key : "";
  if (before === now) return;
  const who = `finger ${event.pointerId}`;
  if (before) hold(who, before, 0, event.timeStamp);
  if (now) hold(who, now, 1, event.timeStamp);
  fingers.set(event.pointerId, now);
}

for (const part of [$("stick"), $("thumb")]) {
  part.addEventListener("pointerdown", event => {
    part.setPointerCapture(event.pointerId);
    event.preventDefault();
    const stick = part === $("stick");
    if (stick && [...fingers.values()].includes("stick")) return;  // one thumb at a time
    fingers.set(event.pointerId, stick ? "stick" : "");
    if (stick) point(event); else slide(event);
  });
  part.addEventListener("pointermove", event => {
    const held = fingers.get(event.pointerId);
    if (held === "stick") point(event); else if (held !== undefined) slide(event);
  });
  for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) part.addEventListener(end, event => {
    const held = fingers.get(event.pointerId);
    if (held === undefined) return;
    fingers.delete(event.pointerId);
    if (held === "stick") point(event); else if (held) hold(`finger ${event.pointerId}`, held, 0, event.timeStamp);
  });
}

function pull(event) {  // dragging on the picture moves the axes part of the way
  if (event.type === "pointerdown") canvas.setPointerCapture(event.pointerId);
  else if (!canvas.hasPointerCapture(event.pointerId)) return;
  const box = canvas.getBoundingClientRect(), up = event.type !== "pointerdown" && event.type !== "pointermove";
  const way = (at, start, side) => up ? 0 : Math.max(-1, Math.min(1, (2 * (at - start) / side - 1) / ALL_THE_WAY));
  const x = way(event.clientX, box.left, box.width), y = way(event.clientY, box.top, box.height);
  for (const [arrow, level] of [["left", -x], ["right", x], ["up", -y], ["down", y]]) {
    const fine = Math.round(FINE * level) / FINE;
    if (gameKeys.has(arrowKey(arrow))) hold(`pull ${arrow}`, arrowKey(arrow), level > DEAD ? fine : 0, event.timeStamp);
  }
}
