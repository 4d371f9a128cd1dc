// The gallery: tiles of what can be played, chosen by arrows, finger, mouse or gamepad. The address names what is played
// after its #, so that going back comes back here.
let tiles = [], chosen = null, dream = null;  // keys: of the tile that was chosen last, and of what is played or loaded
let shownAt = 0, pushed = new Set();  // when the chosen tile began to move; what each pad holds
const STEP = 0.6;  // of a stick's way
const offered = () => document.body.classList.contains("gallery");  // else one dream is served
const choosing = () => document.body.classList.contains("choosing");
const ticketName = () => dream ? `ticket ${dream}` : "ticket";
const tileOf = key => document.querySelector(`.tile[data-key="${key}"]`);

function address(path, more = {}) {
  const query = new URLSearchParams(location.search);
  if (dream) query.set("dream", dream);
  for (const [name, value] of Object.entries(more)) if (value) query.set(name, value);
  return `${path}?${query}`;
}

function part(name, kind, text = "") {
  const made = element(name, text);
  made.className = kind;
  return made;
}

function tileElement(tile) {
  const button = part("button", "tile"), picture = part("div", "picture");
  button.dataset.key = tile.key;
  if (tile.picture) for (const kind of ["backdrop", "front"]) {
    const layer = part("div", kind);
    layer.style.backgroundImage = `url(${tile.picture})`;
    layer.style.backgroundSize = `100% ${100 * tile.frames}%`;
    layer.style.backgroundPositionY = "100%";
    if (kind === "front") layer.style.aspectRatio = `${tile.width} / ${tile.height}`;
    picture.append(layer);
  }
  if (tile.problem) picture.append(part("p", "problem", tile.problem));
  const figures = part("span", "figures"), progress = part("span", "progress"), bar = document.createElement("i");
  for (const [value, what] of tile.figures) {
    const figure = document.createElement("span");
    figure.append(element("b", value), ` ${what}`);
    figures.append(...(figures.firstChild ? [", "] : []), figure);
  }
  progress.setAttribute("role", "progressbar");
  progress.setAttribute("aria-label", `loading ${tile.name}`);
  progress.append(bar, part("span", "stage"));
  progress.hidden = true;
  button.append(picture, part("b", "name", tile.name), part("span", "line", tile.line), figures, progress);
  button.onclick = () => { if (location.hash.slice(1) === tile.key) enter(tile.key); else location.hash = tile.key; };
  button.onpointerenter = () => button.focus({preventScroll: true});
  button.onfocus = () => choose(tile.key);
  const entry = document.createElement("li");
  entry.append(button);
  return entry;
}

async function showGallery() {
  if (line) line.close();
  line = about = dream = resume = null;
  lost = true;
  clearTimeout(retry);
  letGo();
  stayAwake(false);
  for (const kind of URGENT) badge(kind, "");
  notice("");
  delete document.body.dataset.frame;
  pen.clearRect(0, 0, canvas.width, canvas.height);
  document.body.classList.add("choosing");
  document.title = "game_wm";
  try {
    const answer = await fetch(address("/gallery"), {cache: "no-store"});
    if (!answer.ok) throw new Error((await answer.text()).replace(/^\d+: /, ""));
    tiles = await answer.json();
  } catch (error) {
    $("empty").textContent = error instanceof TypeError ? "The player does not answer: it may have ended." : error.message;
    $("empty").hidden = false;
    setTimeout(() => choosing() && !dream && showGallery(), 5000);
    return;
  }
  const groups = Map.groupBy ? Map.groupBy(tiles, tile => tile.group)
    : tiles.reduce((map, tile) => map.set(tile.group, [...(map.get(tile.group) || []), tile]), new Map());
  $("groups").replaceChildren(...[...groups].map(([name, members]) => {
    const section = document.createElement("section"), list = document.createElement("ul");
    section.setAttribute("aria-label", name);
    list.setAttribute("role", "list");
    list.append(...members.map(tileElement));
    section.append(element("h2", name), list);
    return section;
  }));
  $("empty").textContent = "There is no dream here yet. `make demo` trains one in 20 minutes; your own runs appear here too.";
  $("empty").hidden = tiles.length > 0;
  const first = tileOf(chosen) || document.querySelector(".tile");
  if (first) first.focus({preventScroll: !chosen});
}

function choose(key) {
  if (key === chosen) return;
  chosen = key;
  shownAt = performance.now();
  for (const tile of tiles) frame(tile, tile.frames - 1);
}

function frame(tile, number) {
  for (const layer of tileOf(tile.key)?.querySelectorAll(".picture > div") || [])
    layer.style.backgroundPositionY = `${tile.frames > 1 ? 100 * number / (tile.frames - 1) : 0}%`;
}

setInterval(() => {
  const tile = choosing() && !document.hidden && tiles.find(tile => tile.key === chosen);
  if (tile && tile.frames && !matchMedia("(prefers-reduced-motion: reduce)").matches)
    frame(tile, Math.floor((performance.now() - shownAt) / 1000 * tile.fps) % tile.frames);
}, 80);

function enter(key) {  // the gallery stays until the dream is there
  if (dream && dream !== key) loaded("");
  dream = chosen = key;
  connect();
}

function loaded(stage, done = 0) {  // how far the chosen one is; "" where it is no longer on its way
  const tile = tileOf(dream), bar = tile?.querySelector(".progress");
  if (!bar) return;
  bar.hidden = !stage;
  bar.querySelector("i").style.width = `${100 * done}%`;
  bar.querySelector(".stage").textContent = stage;
  bar.setAttribute("aria-valuenow", Math.round(100 * done));
  bar.setAttribute("aria-valuetext", stage);
  tile.classList.toggle("loading", Boolean(stage));
}

function unplayable(words) {  // its tile says why
  const key = dream;
  loaded("");
  dream = null;
  history.replaceState(null, "", location.pathname + location.search);
  tiles = tiles.map(tile => tile.key === key ? {...tile, problem: words} : tile);
  tileOf(key)?.closest("li").replaceWith(tileElement(tiles.find(tile => tile.key === key)));
  tileOf(key)?.focus();
}

function route() {
  const key = location.hash.slice(1);
  if (!key) showGallery(); else if (key !== dream) enter(key);
}

function leaveDream() {
  if (offered()) location.hash = "";
}

function step(across, down) {  // to the next tile in a direction, as it lies on the screen
  const all = [...document.querySelectorAll(".tile")], here = all.indexOf(tileOf(chosen));
  if (!all.length) return;
  let to = all[Math.max(0, Math.min(all.length - 1, here + across))];
  if (down) {
    const at = all[Math.max(0, here)].getBoundingClientRect();
    const boxes = all.map(each => [each, each.getBoundingClientRect()]).filter(([, box]) => down * (box.top - at.top) > 1);
    if (!boxes.length) return;
    const row = down * Math.min(...boxes.map(([, box]) => down * box.top));
    [[to]] = boxes.filter(([, box]) => Math.abs(box.top - row) < 1)
      .sort((a, b) => Math.abs(a[1].left - at.left) - Math.abs(b[1].left - at.left));
  }
  to.focus();
}

const WAYS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};

addEventListener("keydown", event => {
  if (!choosing() || event.ctrlKey || event.metaKey || event.altKey) return;
  if (WAYS[event.key]) {
    event.preventDefault();
    step(...WAYS[event.key]);
  } else if (event.key === "Escape" && dream) leaveDream();
}, true);

function choosePad(pad) {
  const [x, y] = pad.axes, down = i => pad.buttons[i]?.pressed;
  const now = new Set();
  for (const [way, held] of [["ArrowLeft", x < -STEP || down(CROSS.left)], ["ArrowRight", x > STEP || down(CROSS.right)],
    ["ArrowUp", y < -STEP || down(CROSS.up)], ["ArrowDown", y > STEP || down(CROSS.down)], ["play", down(0)]])
    if (held) now.add(`${pad.index} ${way}`);
  for (const each of now) if (!pushed.has(each)) {
    const way = each.split(" ")[1];
    if (way === "play") tileOf(chosen)?.click(); else step(...WAYS[way]);
  }
  pushed = new Set([...[...pushed].filter(each => !each.startsWith(`${pad.index} `)), ...now]);
}
